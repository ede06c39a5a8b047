"""Builds networks and tasks from the plain data in a file, without Hydra: no interpolation, no class that is not trusted, bounded sizes."""

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

# Values that a network derives from its sizes and does not save (position tables, masks): 134 million, 1 GiB of whole numbers.
# Windows of up to 100 pixels stay below.
_DERIVED = 2**27


def build(node: Any, trust: Trust, purpose: Purpose) -> Any:
    """Build what plain data describes.

    A mapping with `_target_` becomes an object of that class, or with `_partial_: true` a function that still takes further arguments.
    All other mappings, lists and values are taken as they are.

    Args:
        node: plain data, as a record in a file holds it.
        trust: says which classes it may name.
        purpose: what it describes.

    Raises:
        UserError: a class is not allowed, or refuses its arguments; both are named.
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
        raise UserError(f"{shortened(special or '_partial_')}: unknown key; beside _target_ a file may only say _partial_: true or false")
    target = trust.find(node["_target_"], purpose)
    check_arguments(target, node)  # what it holds has been built above, so that all classes in it are trusted
    if partial:
        return functools.partial(target, **arguments)
    try:
        return target(**arguments)
    except UserError:
        raise
    except Exception as error:  # whatever a constructor does with values that it was not made for
        raise UserError(f"{node['_target_']}: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, short and printable; without PyTorch's advice to read a file in an unsafe way."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return shortened(line, 300) if "weights_only" not in line else type(error).__name__


def build_on_meta(node: dict[str, Any], trust: Trust, tensors: int) -> nn.Module:
    """Build a network from a file without memory for its weights, to compare it with the file before it is built.

    Args:
        node: the `model` part of a configuration, without its name.
        trust: says which classes it may name.
        tensors: how many the file holds; building ends where the network has many more.

    Returns:
        The network, its parameters and buffers on the meta device.

    Raises:
        UserError: the network cannot be built, or is far larger than the file.
    """
    with torch.device("meta"), _at_most(2 * tensors + 1000, "the file holds"):
        network = build(node, trust, "network")
    require_network(network, shortened(node.get("_target_")))
    derived = sum(buffer.numel() for buffer in network.buffers())
    if derived > _DERIVED:
        raise UserError(f"its record describes a network that derives {derived:,} values from its sizes; expected at most {_DERIVED:,}")
    return network


@contextmanager
def _at_most(parameters: int, whose: str) -> Iterator[None]:
    """Stop the construction of a network that registers more parameters than this."""
    count = 0

    def registered(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        count += parameter is not None
        if count > parameters:
            raise UserError(f"describes a network of more than {parameters:,} tensors, far more than {whose}")

    handle = register_module_parameter_registration_hook(registered)
    try:
        yield
    finally:
        handle.remove()


class _BoundedTensors(TorchDispatchMode):
    """Refuses operations before they take memory: on or to a tensor of too many values, and new tensors of too many values together."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values = values
        self.made = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation if it stays within the bound."""
        shapes = [value.shape for value in args if isinstance(value, Tensor)]
        shape = next((value for value in args if isinstance(value, list | tuple) and value and all(type(v) is int for v in value)), None)
        made = 0 if shape is None else math.prod(max(size, 1) for size in shape)
        sizes = [shape.numel() for shape in shapes]
        if len(shapes) > 1:  # a sum or product of two vectors may be a matrix
            with suppress(RuntimeError):
                sizes.append(torch.broadcast_shapes(*shapes).numel())
        if not shapes:
            self.made += made
        if max([*sizes, made, self.made]) > self.values:
            raise UserError(f"its names and shapes describe a network of more than {self.values:,} values, far more than the file holds")
        return function(*args, **(kwargs or {}))


@contextmanager
def bounded(tensors: int, values: int) -> Iterator[None]:
    """Bound what other code builds from a file's names and shapes: the number of parameters and the size of every tensor.

    Args:
        tensors: how many the file holds.
        values: how many values they have together.
    """
    with _at_most(4 * tensors + 1000, "the file holds"), _BoundedTensors(16 * values + _DERIVED):
        yield
