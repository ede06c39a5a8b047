"""The guard: steps whose loss or gradient is not finite are left out, counted, and end the run when they do not stop."""

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import lightning
import torch
from annotated_types import Ge
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from irformer.data.samples import Sample
from irformer.dynamics.features import probe
from irformer.errors import UserError
from irformer.weights.checkpoints import LAST

_log = logging.getLogger(__name__)


class Guard(lightning.Callback):
    """Leaves out the optimizer step of a non-finite loss or gradient: weights, optimizer, average and running statistics stay as they were.

    The step still counts as one: its samples are used up and the learning rate moves on. Loss and gradient are both looked at, since either
    can hide the other: the gradient of |x| at NaN is 0 in PyTorch, so that an L1 loss of NaN may leave a finite gradient. All processes
    decide alike, whichever of them the numbers went wrong on. The decision waits for the device once a step, so that the times that
    `irformer.training.callbacks.monitor` takes on the host are those of the device too.

    train/grad_norm (L2, over all parameters, before clipping) and train/skipped_steps (since the run began, resumes included) are logged.

    Under fp16 a gradient that overflows while the loss is finite is how the loss scaler finds its scale, at the start and now and then
    later: such a step is counted as skipped, but does not count towards `patience` before the scale has fallen below 1.

    Lightning's SpikeDetection does another thing: it looks at the loss alone, after the optimizer has stepped, and ends the run at once.

    Args:
        patience: steps skipped in a row after which the run ends.
    """

    def __init__(self, patience: Annotated[int, Ge(1)] = 20) -> None:
        self.patience = patience
        self.skipped = 0
        self.skipped_step = 0  # the last step that was skipped, counted from 1
        self._in_a_row = 0
        self._losses: list[Tensor] = []
        self._patches: list[Tensor] = []
        self._buffers: list[Tensor] = []
        self._kept: list[Tensor] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Find what a forward pass changes: the running statistics of a batch norm."""
        saved = pl_module.state_dict(keep_vars=True).keys()
        self._buffers = [buffer for name, buffer in pl_module.named_buffers() if name in saved]

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Sample, batch_idx: int) -> None:
        """Remember the patches until the step is taken, and the running statistics as they were before its first batch."""
        if not self._patches:
            self._kept = [buffer.clone() for buffer in self._buffers]
        self._patches.append(batch["lq"])

    def on_before_backward(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor) -> None:
        """Take the loss of each accumulated batch: a share of the step's loss, times the loss scale."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer) -> None:
        """Decide whether the step is taken.

        Raises:
            UserError: so many steps in a row had no finite loss or gradient.
        """
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        loss = torch.stack(self._losses).sum() / scale
        norm = _gradient_norm(trainer, optimizer)
        wrong = torch.stack([~loss.isfinite(), ~norm.isfinite()]).float()
        wrong_loss, wrong_gradient = (value > 0 for value in trainer.strategy.reduce(wrong, reduce_op="max").tolist())
        if wrong_loss or wrong_gradient:
            self.skipped += 1
            self.skipped_step = trainer.global_step + 1
            if scaler is None or wrong_loss or scale < 1:
                self._in_a_row += 1
                if self._in_a_row == 1 and trainer.is_global_zero:
                    numbers = f"loss {loss.item():.4g}, gradient norm {norm.item():.4g}"
                    _log.warning("step %d: %s: step skipped, nothing is changed (%d so far)", self.skipped_step, numbers, self.skipped)
                if self._in_a_row == self.patience:
                    raise UserError(self._diagnosis(trainer, pl_module, loss, norm))
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None  # an optimizer passes over parameters without gradient, with their state and weight decay
            for buffer, kept in zip(self._buffers, self._kept, strict=True):
                buffer.copy_(kept)
        else:
            self._in_a_row = 0
        self._losses, self._patches = [], []
        pl_module.log("train/grad_norm", norm)
        pl_module.log("train/skipped_steps", float(self.skipped))

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"skipped": self.skipped, "skipped_step": self.skipped_step, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped = state_dict["skipped"]
        self.skipped_step = state_dict["skipped_step"]
        self._in_a_row = state_dict["in_a_row"]

    def _diagnosis(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor, norm: Tensor) -> str:
        """What went wrong, as seen by the first process whose own loss is not finite; all processes have to call it."""
        culprits = [i for i, value in enumerate(self._losses) if not value.isfinite()]
        place = torch.tensor(float(trainer.global_rank if culprits else trainer.world_size), device=trainer.strategy.root_device)
        source = int(trainer.strategy.reduce(place, reduce_op="min").item()) % trainer.world_size
        network: nn.Module = pl_module.network  # type: ignore[assignment]
        with trainer.precision_plugin.forward_context():
            taken = probe(network, self._patches[culprits[0] if culprits else -1])
        activations = ", ".join(f"{name} {values['max_abs']:.3g}" for name, values in taken.items())
        text = (
            f"step {trainer.global_step + 1}: loss {loss.item():.4g}, gradient norm {norm.item():.4g}, the last of {self.patience} steps "
            f"in a row whose loss or gradient was not finite (callbacks.guard.patience) and which were skipped; "
            f"largest activations of this batch by layer: {activations}; {_way_on(trainer)}"
        )
        return trainer.strategy.broadcast(text, src=source)


def step_was_skipped(trainer: lightning.Trainer) -> bool:
    """Whether a guard left out the step that was counted last."""
    guards = [callback for callback in trainer.callbacks if isinstance(callback, Guard)]  # type: ignore[attr-defined]
    return any(guard.skipped_step == trainer.global_step > 0 for guard in guards)


def _gradient_norm(trainer: lightning.Trainer, optimizer: Optimizer) -> Tensor:
    """The L2 norm of all gradients, a scalar on the device."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).to(trainer.strategy.root_device)
    if isinstance(trainer.strategy, FSDPStrategy):  # each process holds a shard of every gradient
        norm = trainer.strategy.reduce(norm.square(), reduce_op="sum").sqrt()
    return norm


def _way_on(trainer: lightning.Trainer) -> str:
    """The last checkpoint, which is a good one since no bad step was taken, and how to go on from it with another arithmetic."""
    file = Path(trainer.default_root_dir) / LAST
    if not file.is_file():
        return "there is no checkpoint yet (checkpoint_every): start again with a lower optim.lr or with trainer.gradient_clip_val"
    step = torch.load(file, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    folder = os.path.relpath(trainer.default_root_dir)
    remedy = "trainer.gradient_clip_val=0.5" if trainer.precision == "32-true" else "trainer.precision=32-true"
    return f"last good checkpoint: {os.path.relpath(file)}, step {step}; to go on from it: python train.py resume={folder} {remedy}"
