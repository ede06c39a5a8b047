"""A network in a given precision, with a record of what happened to its activations."""

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeGuard, get_args

import torch
from torch import Tensor, nn

from irformer.core.words import nearest
from irformer.errors import UserError
from irformer.models.interface import require_images
from irformer.precision.activations import ActivationWatch, watchable_layers
from irformer.precision.half_precision import to_half, to_safe_half, widen
from irformer.precision.quantization import Calibration, quantize_network

Precision = Literal["fp32", "bf16", "fp16", "int8", "int4", "fp16_safe"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BITS: dict[str, int] = {"int8": 8, "int4": 4}
LARGEST_HALF = 65504.0
"""The largest number of float16."""
# Precisions with more range, which do not overflow where another one does.
_WIDER = {"fp16": "fp16_safe, bf16 or fp32", "fp16_safe": "bf16 or fp32"}
_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
_WORDS = {torch.float16: "float16", torch.bfloat16: "bfloat16"}
_SAFE = (
    "residual branches in float16, from the output of their norm to the product of their last layer; the residual stream, the norms and "
    "all layers that read the stream in float32"
)
_SAFE_BY_LAYER = "products of linear and convolution layers in float16, with inputs divided by a power of two; the rest in float32"
_FAKE = (
    "weights and inputs of linear and convolution layers, weights per output channel, inputs per tensor, ranges from the largest absolute "
    "value (min-max), of the inputs on the calibration images; products of attention, norms and the residual stream in float32"
)


@dataclass(frozen=True)
class PrecisionRecord:
    """What happened in the calls of a network since the record was started.

    Args:
        precision: the precision.
        scheme: what it means for weights and activations, in words.
        calibration: the images from which the ranges of activations were taken; empty unless activations are quantized.
        images: number of images.
        values: number of values in the restored images.
        non_finite: how many of them were NaN or infinite.
        largest: the largest absolute activation of each layer by name, in the order of computation; inf or nan if one was not finite.
    """

    precision: Precision
    scheme: str
    calibration: tuple[str, ...]
    images: int
    values: int
    non_finite: int
    largest: Mapping[str, float]

    @property
    def first_overflow(self) -> str | None:
        """The first layer with an activation that is not finite, or None."""
        return next((name for name, value in self.largest.items() if not math.isfinite(value)), None)

    @property
    def peak(self) -> tuple[str, float]:
        """The layer with the largest activation, and the activation; the first layer that overflowed, if any did."""
        name = self.first_overflow or max(self.largest, key=lambda layer: self.largest[layer], default="")
        return name, self.largest.get(name, 0.0)

    @property
    def wider(self) -> str:
        """The precisions that have more range than this one, in words."""
        return _WIDER.get(self.precision, "fp32")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for results.json."""
        return {**asdict(self), "calibration": list(self.calibration), "first_overflow": self.first_overflow}


class Reduced:
    """A network in a precision, and the record of its calls; made by `in_precision`.

    Args:
        network: the network; it takes and returns float32 images.
        precision: its precision.
        scheme: the precision in words.
        calibration: names of the calibration images.
        watch: watches the network.
    """

    def __init__(self, network: nn.Module, precision: Precision, scheme: str, calibration: tuple[str, ...], watch: ActivationWatch) -> None:
        self.network = network
        self.precision = precision
        self.scheme = scheme
        self.calibration = calibration
        self._watch = watch

    @property
    def rules(self) -> dict[str, Any]:
        """The precision as a part of the protocol of a measurement, in plain values; empty for fp32."""
        if self.precision == "fp32":
            return {}
        calibration = {"calibration": list(self.calibration)} if self.calibration else {}
        return {"precision": self.precision, "precision_scheme": self.scheme, **calibration}

    def record(self) -> PrecisionRecord:
        """Return the record of all calls since the last reset."""
        watch = self._watch
        return PrecisionRecord(self.precision, self.scheme, self.calibration, watch.images, watch.values, watch.non_finite, watch.largest)

    def reset(self) -> None:
        """Start the record anew, for example for another test set."""
        self._watch.reset()


def in_precision(network: nn.Module, precision: str, calibration: Calibration | None = None) -> Reduced:
    """Copy a network into a precision.

    - `fp32`: float32.
    - `fp16`, `bf16`: weights and activations in half precision, as after `network.half()`. The norms compute statistics in float32.
    - `fp16_safe`: float16 in the residual branches, float32 for the residual stream that they are added to, which may exceed 65504.
    - `int8`, `int4`: the weights and inputs of linear and convolution layers are rounded to integers and multiplied in float32 (fake
      quantization). Both are symmetric; weights have one range for each output channel, inputs one for each tensor, from the largest
      absolute values, those of the inputs on calibration images. Products of attention, norms and the stream stay float32.

    Example:

    >>> import torch
    >>> from irformer import create_model
    >>> from irformer.precision import in_precision
    >>> reduced = in_precision(create_model("swinir_tiny"), "fp16")
    >>> reduced.network(torch.rand(1, 3, 16, 16)).dtype
    torch.float32
    >>> reduced.record().non_finite
    0

    Args:
        network: see `irformer.models.interface.Network`; it is not changed.
        precision: one of `PRECISIONS`.
        calibration: required for int8 and int4; the other precisions do not use it.

    Returns:
        The copy, in evaluation mode on the same device, and its record. It is called like the network, with float32 images.

    Raises:
        UserError: the precision is unknown, calibration images are missing, or the network does not run in this precision.
    """
    if not _is_precision(precision):
        raise UserError(f"precision={precision}: unknown precision; known: {', '.join(PRECISIONS)}{nearest(precision, PRECISIONS)}")
    if precision in BITS and (calibration is None or not calibration.images):
        raise UserError(f"precision={precision} takes the ranges of activations from images, and found none: give calibration images")
    layers = watchable_layers(network)
    reduced = copy.deepcopy(network).float().eval()
    scheme = _convert(reduced, precision, calibration)
    _require_runs(reduced, precision)
    names = calibration.names if calibration is not None and precision in BITS else ()
    # The layers are those of the original: what replaced them is watched under their names.
    return Reduced(reduced, precision, scheme, names, ActivationWatch(reduced, layers))


def _is_precision(word: str) -> TypeGuard[Precision]:
    return word in PRECISIONS


def _convert(network: nn.Module, precision: Precision, calibration: Calibration | None) -> str:
    """Convert a network in place; return the scheme in words."""
    if precision == "fp32":
        return "weights and activations in float32"
    if precision == "fp16_safe":
        return _SAFE if to_safe_half(network) else _SAFE_BY_LAYER
    if precision in _HALF:
        dtype = _HALF[precision]
        to_half(network, dtype)
        network.register_forward_pre_hook(_Cast(dtype))
        network.register_forward_hook(widen)
        return f"weights and activations in {_WORDS[dtype]}; the statistics of irformer's norms and global averages in float32"
    assert calibration is not None
    left = quantize_network(network, BITS[precision], calibration)
    missed = f"; not reached by the calibration images and left in float32: {', '.join(left)}" if left else ""
    return f"fake quantization to {BITS[precision]} bits, symmetric: {_FAKE}{missed}"


def _require_runs(network: nn.Module, precision: str) -> None:
    """Check on small images that every operation of a network exists in this precision on its device."""
    try:
        require_images(network, type(network).__name__, 32)
    except UserError as error:
        raise UserError(f"precision={precision}: {error}; use another precision or device") from None


class _Cast:
    """A hook that converts the images that a network is given."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, _module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].to(self.dtype), *args[1:])
