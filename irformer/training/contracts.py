"""Contracts of classes from other packages, and their checks when a run is built.

| part of a run | contract |
|---|---|
| norm | `Norm`, built by `norm.block(dim, channels_first=...)` |
| network (backbone) | `irformer.models.interface.Network` |
| loss | `Loss` |
| degradation | `irformer.tasks.degradations.Degradation`, with `PatchDegradation` or `DeviceDegradation` to train on clean images |
| task | `irformer.tasks.Task` or a subclass |
| callback | a subclass of `lightning.Callback` |
| optimizer | `OptimizerFactory` |
| schedule | `Schedule` |

Each check raises a UserError with one line that names the class and what is wrong. docs/extending.md has an example of each.
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from irformer.errors import UserError
from irformer.models.interface import require_images
from irformer.norms import NormScheme


class Norm(Protocol):
    """A norm: a `torch.nn.Module` with the constructor (dim, channels_first=...)."""

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map features [B, ..., C], or [B, C, H, W] with channels_first, to (y, scale).

        Returns:
            The input of the residual branch, with the shape of x, and the factor of the branch's output: a tensor that broadcasts over
            x, or None for 1.
        """
        ...


class Loss(Protocol):
    """A loss, usually a `torch.nn.Module`."""

    def __call__(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Compare two float32 batches [B, C, H, W] in [0, 1]; returns a differentiable scalar."""
        ...


class OptimizerFactory(Protocol):
    """The object built from `optim.optimizer`: an optimizer class with `_partial_: true`."""

    def __call__(self, params: Iterable[nn.Parameter]) -> Optimizer:
        """Build the optimizer of a network's parameters. Checkpoints contain its state, so it consists of tensors and plain values."""
        ...


class Schedule(Protocol):
    """A learning rate schedule."""

    def __call__(self, step: int) -> float:
        """Return the factor of the optimizer's learning rate at step 0, 1, ...; depends only on the step, so that runs can be resumed."""
        ...


def require_norm(scheme: Any) -> Callable[..., Any]:
    """Check the norm scheme of a run, and that the signature of its norm accepts (dim, channels_first=...).

    Returns:
        The factory of the blocks' norms.

    Raises:
        UserError: the object is not a norm scheme, or its norm cannot be built.
    """
    if not isinstance(scheme, NormScheme):
        raise UserError(f"norm: {_name(scheme)} is not an irformer.norms.NormScheme; expected that class or a subclass")
    block = scheme.block
    try:
        signature = inspect.signature(block)
    except (TypeError, ValueError):
        return block
    try:
        signature.bind(64, channels_first=True)
    except TypeError as error:
        raise UserError(f"norm.block: {_name(block)} cannot be called as (dim, channels_first=True): {error}") from None
    return block


@contextmanager
def checked_norms(network: nn.Module, block: Callable[..., Any]) -> Iterator[None]:
    """Check the outputs of a network's norms within a block.

    Args:
        network: the network.
        block: the factory of its norms; only norms built by a class or a partial of a class are checked.

    Raises:
        UserError: a norm does not return (y, scale).
    """
    kind = getattr(block, "func", block)
    norms = [module for module in network.modules() if inspect.isclass(kind) and isinstance(module, kind)]
    hooks = [norm.register_forward_hook(_check_norm) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_norm(norm: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
    x, what = inputs[0], f"norm.block: {_name(norm)}"
    if not isinstance(output, tuple) or len(output) != 2:
        found = f"a tuple of {len(output)}" if isinstance(output, tuple) else f"a {type(output).__name__}"
        raise UserError(f"{what} returns {found}: expected (y, scale), where scale None means 1")
    y, scale = output
    if not isinstance(y, Tensor) or y.shape != x.shape:
        found = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        raise UserError(f"{what} returns a y of {found}: expected a tensor of the input's shape, {tuple(x.shape)}")
    if scale is None:
        return
    if not isinstance(scale, Tensor):
        raise UserError(f"{what} returns a scale that is a {type(scale).__name__}: expected a tensor or None")
    try:
        fits = torch.broadcast_shapes(scale.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise UserError(f"{what} returns a scale of shape {tuple(scale.shape)}: expected one that broadcasts over {tuple(x.shape)}")


def require_trainable(network: nn.Module, name: str, side: int, block: Callable[..., Any] | None) -> None:
    """Check a network and its norms on small images, and a copy of the network in training mode.

    Args:
        network: passes `irformer.models.interface.require_network`.
        name: name of the network in messages.
        side: side of the images in pixels.
        block: the factory of its norms; None if it does not take a norm.

    Raises:
        UserError: the network fails, does not return images, or has no trainable parameters.
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"{name} has no parameters that require a gradient, so there is nothing to train")
    with nullcontext() if block is None else checked_norms(network, block):
        require_images(network, name, side)
    trained = copy.deepcopy(network).train()  # a copy, because running statistics may change
    channels: Any = network.in_channels
    with torch.random.fork_rng(devices=[]):
        try:
            out = trained(torch.rand(2, channels, side, side))
        except UserError:
            raise
        except Exception as error:  # networks fail on unsupported batches in many ways
            place = f"{name}: in training mode, on a batch of 2 images of {side}x{side} pixels"
            raise UserError(f"{place}, it fails ({_line(error)})") from error
    if not isinstance(out, Tensor):
        raise UserError(f"{name}: in training mode it returns a {type(out).__name__}: expected one tensor, the restored images")
    if not out.requires_grad:
        raise UserError(f"{name}: in training mode it returns images without a gradient: expected them to be computed from its parameters")


def require_loss(loss: Any, name: str, channels: int, side: int) -> None:
    """Check a copy of a loss on two small batches.

    Args:
        loss: any object.
        name: name of the loss in messages.
        channels: image channels.
        side: side of the images in pixels.

    Raises:
        UserError: the loss does not fulfill `Loss`.
    """
    if not callable(loss):
        raise UserError(f"loss: {name} is not callable: expected loss(restored, clean)")
    with torch.random.fork_rng(devices=[]):
        restored = torch.rand(2, channels, side, side, requires_grad=True)
        try:
            value = copy.deepcopy(loss)(restored, torch.rand(2, channels, side, side))
        except UserError:
            raise
        except Exception as error:  # losses fail on unsupported images in many ways
            raise UserError(f"loss: {name} fails on images of {side}x{side} pixels ({_line(error)})") from error
    if not isinstance(value, Tensor) or value.dim() != 0:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UserError(f"loss: {name} returns {found}: expected a scalar tensor without dimensions; take the mean")
    if not value.requires_grad:
        raise UserError(f"loss: {name} returns a scalar without a gradient: expected one that is computed from the restored images")


def require_optimizer(optimizer: Any, name: str) -> None:
    """Check the object that `optim.optimizer` builds.

    Raises:
        UserError: the object is not an optimizer.
    """
    if not isinstance(optimizer, Optimizer):
        raise UserError(f"optim.optimizer: {name} builds a {type(optimizer).__name__}: expected a torch.optim.Optimizer")


def require_schedule(schedule: Any, name: str, steps: int) -> None:
    """Check a schedule at the first and the last step of a run.

    Raises:
        UserError: the schedule does not fulfill `Schedule`.
    """
    if not callable(schedule):
        raise UserError(f"optim.schedule: {name} is not callable: expected schedule(step), the factor of the learning rate")
    for step in (0, steps):
        try:
            factor = schedule(step)
        except Exception as error:  # schedules fail in many ways
            raise UserError(f"optim.schedule: {name} fails at step {step} ({_line(error)})") from error
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not math.isfinite(factor):
            raise UserError(f"optim.schedule: {name} returns {factor!r} at step {step}: expected a number, the factor of the learning rate")


def require_callback(callback: Any, key: str) -> None:
    """Check a callback, and that a resumed run can load its state.

    Args:
        callback: any object.
        key: configuration key, for messages.

    Raises:
        UserError: the object is not a callback, or its state is not plain data.
    """
    import lightning  # here, because commands that do not train should not wait for it

    name = _name(callback)
    if not isinstance(callback, lightning.Callback):
        raise UserError(f"{key}: {name} is not a callback: expected a subclass of lightning.Callback (not pytorch_lightning.Callback)")
    kind = _not_plain(callback.state_dict())
    if kind is not None:
        raise UserError(
            f"{key}: the state of {name} contains a {kind}, which a resumed run cannot load: expected tensors, numbers, text, lists, dicts"
        )


def _not_plain(value: Any) -> str | None:
    """Return the first type in a callback's state that checkpoints must not contain, or None."""
    if isinstance(value, Tensor) or value is None or type(value) in (bool, int, float, complex, str, bytes):
        return None
    if type(value) in (list, tuple, set):
        return next((kind for part in value if (kind := _not_plain(part)) is not None), None)
    if isinstance(value, dict) and type(value).__module__ in ("builtins", "collections"):
        parts = [*value, *value.values()]
        return next((kind for part in parts if (kind := _not_plain(part)) is not None), None)
    return type(value).__name__


def _name(value: Any) -> str:
    """Return the qualified name of a class, or of the class of an object."""
    kind = getattr(value, "func", value)
    kind = kind if inspect.isclass(kind) or inspect.isfunction(kind) else type(kind)
    return f"{kind.__module__}.{kind.__qualname__}"


def _line(error: BaseException) -> str:
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:200]}" if line else type(error).__name__
