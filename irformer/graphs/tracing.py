"""Tracing a network for images of any size, in float32 or float16."""

import copy
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from irformer.errors import UserError
from irformer.models.interface import multiple_of
from irformer.precision.half_precision import to_half, to_safe_half

GraphPrecision = Literal["fp32", "fp16", "fp16_safe"]


class _HalfImages(nn.Module):
    """A network of float32 images, for float16 images.

    Args:
        network: takes and returns float32 images.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lq: Tensor) -> Tensor:
        """Restore float16 images."""
        out: Tensor = self.network(lq.float())
        return out.half()


def trace(network: nn.Module, precision: GraphPrecision) -> ExportedProgram:
    """Trace a network for any number of images of any size, on the CPU.

    Args:
        network: see `irformer.models.interface.Network`; it is not changed.
        precision: `fp32`; `fp16` for weights, activations and images in float16, with statistics and softmax in float32; or `fp16_safe`,
            which keeps the residual stream in float32 (see `irformer.precision.in_precision`).

    Raises:
        UserError: the network cannot be traced, for example because its operations depend on pixel values.
    """
    converted = copy.deepcopy(network).cpu().float().eval()
    if precision == "fp16":
        to_half(converted, torch.float16)
    elif precision == "fp16_safe":
        to_safe_half(converted)
        converted = _HalfImages(converted)
    multiple = multiple_of(network)
    channels: Any = network.in_channels
    # Several windows in each direction, different numbers of them, and padding; the values and sizes do not matter.
    example = torch.full((2, channels, 2 * multiple + 3, 3 * multiple + 5), 0.5, dtype=torch.float32 if precision == "fp32" else torch.half)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(converted, (example,), dynamic_shapes=_any_size(converted, channels))
    except UserError:
        raise
    except Exception as error:  # the exporter raises errors of many kinds
        raise UserError(
            f"{type(network).__name__} cannot be traced for images of any size ({reason(error)}); expected a network whose operations "
            "depend neither on pixel values nor on the size"
        ) from error


def _any_size(network: nn.Module, channels: int) -> Any:
    """Return the description of batches of any size; PyTorch assumes nothing about the sizes, not even that they exceed 1."""
    try:
        from torch.fx.experimental.dynamic_spec import ParamsSpec, ShapesSpec, ShapeVar, TensorSpec
    except ImportError:
        raise UserError(f"torch {torch.__version__} cannot trace networks for all sizes: pip install -U torch") from None
    batch, height, width = (ShapeVar(name, min=1) for name in ("batch", "height", "width"))
    images = next(iter(inspect.signature(network.forward).parameters))
    return ShapesSpec(params=ParamsSpec({images: TensorSpec([batch, channels, height, width])}))


def reason(error: BaseException) -> str:
    """Return the kind and the first line of the error that caused another one."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:200]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings within a block: exporters warn about their own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
