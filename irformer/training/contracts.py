"""What classes of other packages have to offer, and the checks of it when a run is built.

| part of a run | contract |
|---|---|
| norm | `Norm`, built by `norm.block(dim, channels_first=...)` |
| network (backbone) | `irformer.models.interface.Network` |
| loss | `Loss` |
| degradation | `irformer.tasks.degradations.Degradation`, with `PatchDegradation` or `DeviceDegradation` to train on clean images |
| task | a `irformer.tasks.Task` or a subclass |
| callback | a subclass of `lightning.Callback` |
| optimizer | `OptimizerFactory` |
| schedule | `Schedule` |

Each check raises a UserError with one line that names the class and what it lacks. docs/extending.md shows one of each.
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
    """A norm: a `torch.nn.Module` that is built by (dim, channels_first=...)."""

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map features [B, ..., C], or [B, C, H, W] with channels_first, to (y, scale).

        Returns:
            What the residual branch reads, of x's shape, and what the branch's output is multiplied by: a tensor that broadcasts over
            x, or None for 1.
        """
        ...


class Loss(Protocol):
    """A loss, usually a `torch.nn.Module`."""

    def __call__(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Compare two batches [B, C, H, W] in [0, 1], of float32; returns a scalar that gradients flow back from."""
        ...


class OptimizerFactory(Protocol):
    """What `optim.optimizer` becomes: a class of optimizers with `_partial_: true`."""

    def __call__(self, params: Iterable[nn.Parameter]) -> Optimizer:
        """Build the optimizer of a network's parameters. Its state is saved with a checkpoint, so it holds tensors and plain values."""
        ...


class Schedule(Protocol):
    """The learning rate over the steps of a run."""

    def __call__(self, step: int) -> float:
        """The factor of the optimizer's learning rate at step 0, 1, ...; a function of the step alone, so that a run can be resumed."""
        ...


def require_norm(scheme: Any) -> Callable[..., Any]:
    """Check the `norm` part of a run, and that its norm can be built by (dim, channels_first=...), as far as its signature says so.

    Returns:
        What builds the norm of the blocks.

    Raises:
        UserError: it is no norm scheme, or its norm cannot be built.
    """
    if not isinstance(scheme, NormScheme):
        raise UserError(f"norm: {_name(scheme)} is no irformer.norms.NormScheme: expected the class itself or a subclass")
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
    """Check the output of every norm of a class while a network is applied.

    Args:
        network: the network.
        block: builds its norms; only a class, or a partial of one, says which modules they are.

    Raises:
        UserError: a norm returns something other than (y, scale).
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
    """Try a network on small images, its norms with it, and a copy of it in training mode.

    Args:
        network: fulfils `irformer.models.interface.require_network`.
        name: what messages call it.
        side: of the images in pixels.
        block: builds its norms; None where it takes none.

    Raises:
        UserError: it fails or returns something else than images, or has no parameters to train.
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"{name} has no parameters that require a gradient: there is nothing to train")
    with nullcontext() if block is None else checked_norms(network, block):
        require_images(network, name, side)
    trained = copy.deepcopy(network).train()  # its running statistics may change
    channels: Any = network.in_channels
    with torch.random.fork_rng(devices=[]):
        try:
            out = trained(torch.rand(2, channels, side, side))
        except UserError:
            raise
        except Exception as error:  # whatever a network does with a batch that it was not made for
            what = f"{name}: in training mode, on a batch of 2 images of {side}x{side} pixels, it fails"
            raise UserError(f"{what} ({_line(error)})") from error
    if not isinstance(out, Tensor):
        raise UserError(f"{name}: in training mode it returns a {type(out).__name__}: expected one tensor, the restored images")
    if not out.requires_grad:
        raise UserError(f"{name}: in training mode it returns images without a gradient: expected them to be computed from its parameters")


def require_loss(loss: Any, name: str, channels: int, side: int) -> None:
    """Try a copy of a loss on two small batches.

    Args:
        loss: any object.
        name: what messages call it.
        channels: of the images.
        side: of the images in pixels.

    Raises:
        UserError: it does not fulfil `Loss`.
    """
    if not callable(loss):
        raise UserError(f"loss: {name} is a {type(loss).__name__} that cannot be called: expected loss(restored, clean)")
    with torch.random.fork_rng(devices=[]):
        restored = torch.rand(2, channels, side, side, requires_grad=True)
        try:
            value = copy.deepcopy(loss)(restored, torch.rand(2, channels, side, side))
        except UserError:
            raise
        except Exception as error:  # whatever a loss does with images that it was not made for
            raise UserError(f"loss: {name} fails on images of {side}x{side} pixels ({_line(error)})") from error
    if not isinstance(value, Tensor) or value.dim() != 0:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UserError(f"loss: {name} returns {found}: expected a tensor with one number and no dimensions; take the mean")
    if not value.requires_grad:
        raise UserError(f"loss: {name} returns a number without a gradient: expected one that is computed from the restored images")


def require_optimizer(optimizer: Any, name: str) -> None:
    """Check what `optim.optimizer` builds.

    Raises:
        UserError: it is no optimizer.
    """
    if not isinstance(optimizer, Optimizer):
        raise UserError(f"optim.optimizer: {name} builds a {type(optimizer).__name__}: expected a torch.optim.Optimizer")


def require_schedule(schedule: Any, name: str, steps: int) -> None:
    """Check a schedule at the first and the last step of a run.

    Raises:
        UserError: it does not fulfil `Schedule`.
    """
    if not callable(schedule):
        raise UserError(f"optim.schedule: {name} cannot be called: expected schedule(step), the factor of the learning rate")
    for step in (0, steps):
        try:
            factor = schedule(step)
        except Exception as error:  # whatever a schedule does with a step that it was not made for
            raise UserError(f"optim.schedule: {name} fails at step {step} ({_line(error)})") from error
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not math.isfinite(factor):
            raise UserError(f"optim.schedule: {name} returns {factor!r} at step {step}: expected a number, the factor of the learning rate")


def require_callback(callback: Any, key: str) -> None:
    """Check a callback, and that its state can be read again when the run is resumed.

    Args:
        callback: any object.
        key: of the configuration, for messages.

    Raises:
        UserError: it is no callback, or its state is no plain data.
    """
    import lightning  # here, so that commands that train nothing need not wait for it

    name = _name(callback)
    if not isinstance(callback, lightning.Callback):
        raise UserError(f"{key}: {name} is no callback: expected a subclass of lightning.Callback (not of pytorch_lightning's)")
    kind = _not_plain(callback.state_dict())
    if kind is not None:
        raise UserError(
            f"{key}: the state of {name} holds a {kind}, which a resumed run could not read: expected tensors, numbers, text, lists, dicts"
        )


def _not_plain(value: Any) -> str | None:
    """The first type in a callback's state that reading a checkpoint refuses."""
    if isinstance(value, Tensor) or value is None or type(value) in (bool, int, float, complex, str, bytes):
        return None
    if type(value) in (list, tuple, set):
        return next((kind for part in value if (kind := _not_plain(part)) is not None), None)
    if isinstance(value, dict) and type(value).__module__ in ("builtins", "collections"):
        parts = [*value, *value.values()]
        return next((kind for part in parts if (kind := _not_plain(part)) is not None), None)
    return type(value).__name__


def _name(value: Any) -> str:
    """The full name of a class, or of the class of an object."""
    kind = getattr(value, "func", value)
    kind = kind if inspect.isclass(kind) or inspect.isfunction(kind) else type(kind)
    return f"{kind.__module__}.{kind.__qualname__}"


def _line(error: BaseException) -> str:
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:200]}" if line else type(error).__name__
