"""Builds networks and tasks from plain data in files, without Hydra: no interpolation, only trusted classes, bounded sizes."""

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from irformer.core.trust import Purpose, Trust, shortened
from irformer.errors import UserError
from irformer.models.interface import require_network
from irformer.schema.check import check_arguments

# Maximum number of values in buffers that a network computes from its sizes and does not save (position tables, masks): 134 million,
# 1 GiB of int64. Windows of up to 100 pixels stay below.
_MAX_DERIVED = 2**27


def build(node: Any, trust: Trust, purpose: Purpose) -> Any:
    """Build the object that plain data describes.

    A mapping with `_target_` becomes an instance of that class, or a partial function with `_partial_: true`. All other mappings, lists and
    values are returned as they are.

    Args:
        node: plain data, such as a record in a file.
        trust: the classes that the data may name.
        purpose: kind of the object.

    Raises:
        UserError: a class is not trusted, or rejects its arguments.
    """
    if isinstance(node, list):
        return [build(value, trust, purpose) for value in node]
    if not isinstance(node, dict):
        return node
    arguments = {key: build(value, trust, purpose) for key, value in node.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return arguments
    partial = node.get("_partial_", False)
    special = next((key for key in arguments if key.startswith("_")), None)
    if special is not None or not isinstance(partial, bool):
        raise UserError(
            f"{shortened(special or '_partial_')}: unknown key; besides _target_, a file may only contain _partial_: true or false"
        )
    target = trust.find(node["_target_"], purpose)
    check_arguments(target, node)  # its arguments were built above, so all classes in them are trusted
    if partial:
        return functools.partial(target, **arguments)
    try:
        return target(**arguments)
    except UserError:
        raise
    except Exception as error:  # constructors fail on invalid values in many ways
        raise UserError(f"{node['_target_']}: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, short and printable, without PyTorch's advice to load files unsafely."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return shortened(line, 300) if "weights_only" not in line else type(error).__name__


def build_on_meta(node: dict[str, Any], trust: Trust, tensors: int) -> nn.Module:
    """Build a network described in a file on the meta device, to compare it with the file before allocating memory.

    Args:
        node: the `model` section of a configuration, without its name.
        trust: the classes that it may name.
        tensors: number of tensors in the file; construction stops if the network has many more.

    Returns:
        The network with parameters and buffers on the meta device.

    Raises:
        UserError: the network cannot be built, or is far larger than the file.
    """
    with torch.device("meta"), _limit_parameters(2 * tensors + 1000):
        network = build(node, trust, "network")
    require_network(network, shortened(node.get("_target_")))
    derived = sum(buffer.numel() for buffer in network.buffers())
    if derived > _MAX_DERIVED:
        raise UserError(f"its record describes a network with {derived:,} values in buffers; expected at most {_MAX_DERIVED:,}")
    return network


@contextmanager
def _limit_parameters(maximum: int) -> Iterator[None]:
    """Abort the construction of a network that registers more than `maximum` parameters."""
    count = 0

    def registered(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        count += parameter is not None
        if count > maximum:
            raise UserError(f"describes a network of more than {maximum:,} tensors, far more than the file contains")

    handle = register_module_parameter_registration_hook(registered)
    try:
        yield
    finally:
        handle.remove()


class _BoundedTensors(TorchDispatchMode):
    """Rejects operations before they allocate memory: if a tensor is too large, or if all new tensors together are."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values = values
        self.allocated = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation if it stays within the limit."""
        shapes = [value.shape for value in args if isinstance(value, Tensor)]
        shape = next((value for value in args if isinstance(value, list | tuple) and value and all(type(v) is int for v in value)), None)
        size = 0 if shape is None else math.prod(max(length, 1) for length in shape)
        sizes = [shape.numel() for shape in shapes]
        if len(shapes) > 1:  # broadcasting two vectors may result in a matrix
            with suppress(RuntimeError):
                sizes.append(torch.broadcast_shapes(*shapes).numel())
        if not shapes:
            self.allocated += size
        if max([*sizes, size, self.allocated]) > self.values:
            raise UserError(f"its names and shapes describe a network of more than {self.values:,} values, far more than the file contains")
        return function(*args, **(kwargs or {}))


@contextmanager
def bounded(tensors: int, values: int) -> Iterator[None]:
    """Limit what other code builds from the names and shapes in a file: the number of parameters and the size of tensors.

    Args:
        tensors: number of tensors in the file.
        values: total number of their values.
    """
    with _limit_parameters(4 * tensors + 1000), _BoundedTensors(16 * values + _MAX_DERIVED):
        yield
