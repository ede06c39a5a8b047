"""The guard: skip and count steps whose loss or gradient is not finite, and end the run after too many in a row."""

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import lightning
import torch
from annotated_types import Ge
from lightning.pytorch.strategies import FSDPStrategy
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer

from irformer.config.compose import resume_command
from irformer.config.saved import CONFIG, read_saved_config
from irformer.data.samples import Sample
from irformer.dynamics.features import probe
from irformer.errors import UserError
from irformer.weights.checkpoints import LAST

_log = logging.getLogger(__name__)


class Guard(lightning.Callback):
    """Skips optimizer steps with a non-finite loss or gradient; weights, optimizer, average and running statistics remain unchanged.

    A skipped step still counts: its samples are consumed and the learning rate schedule advances. Both loss and gradient are checked,
    because an L1 loss of NaN may have a finite gradient (in PyTorch, the gradient of |x| at NaN is 0). All processes make the same
    decision, even if only one of them has a non-finite value. The decision synchronizes with the device once per step, so the times that
    `irformer.training.callbacks.monitor` measures on the host are also those of the device.

    It logs train/grad_norm (L2 over all parameters, before clipping) and train/skipped_steps (since the run started, across resumes).

    With fp16, the loss scaler finds its scale by gradients that overflow with a finite loss, at the start and occasionally later. Such a
    step counts as skipped, but not towards `patience` until the scale has fallen below 1.

    Lightning's SpikeDetection is different: it checks only the loss, after the optimizer step, and ends the run immediately.

    Args:
        patience: consecutive skipped steps after which the run ends.
    """

    def __init__(self, patience: Annotated[int, Ge(1)] = 20) -> None:
        self.patience = patience
        self.skipped = 0
        self.skipped_step = 0  # the last skipped step, counted from 1
        self._consecutive = 0
        self._losses: list[Tensor] = []
        self._patches: list[Tensor] = []
        self._buffers: list[Tensor] = []
        self._kept: list[Tensor] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Collect the state that a forward pass changes: the running statistics of batch norms."""
        saved = pl_module.state_dict(keep_vars=True).keys()
        self._buffers = [buffer for name, buffer in pl_module.named_buffers() if name in saved]

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Sample, batch_idx: int) -> None:
        """Keep the patches until the end of the step, and a copy of the running statistics before its first batch."""
        if not self._patches:
            self._kept = [buffer.clone() for buffer in self._buffers]
        self._patches.append(batch["lq"])

    def on_before_backward(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor) -> None:
        """Record the loss of each accumulated batch: its share of the step's loss, times the loss scale."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer) -> None:
        """Skip the step if its loss or gradient is not finite.

        Raises:
            UserError: `patience` consecutive steps were not finite.
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
                self._consecutive += 1
                if self._consecutive == 1 and trainer.is_global_zero:
                    numbers = f"loss {loss.item():.4g}, gradient norm {norm.item():.4g}"
                    _log.warning("step %d: %s: step skipped, weights unchanged (%d so far)", self.skipped_step, numbers, self.skipped)
                if self._consecutive == self.patience:
                    raise UserError(self._diagnosis(trainer, pl_module, loss, norm))
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None  # optimizers skip parameters without a gradient, including state and weight decay
            for buffer, kept in zip(self._buffers, self._kept, strict=True):
                buffer.copy_(kept)
        else:
            self._consecutive = 0
        self._losses, self._patches = [], []
        pl_module.log("train/grad_norm", norm)
        pl_module.log("train/skipped_steps", float(self.skipped))

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {"skipped": self.skipped, "skipped_step": self.skipped_step, "in_a_row": self._consecutive}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counters."""
        self.skipped = state_dict["skipped"]
        self.skipped_step = state_dict["skipped_step"]
        self._consecutive = state_dict["in_a_row"]

    def _diagnosis(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor, norm: Tensor) -> str:
        """Describe the failure, as seen by the first process with a non-finite loss; all processes must call this."""
        culprits = [i for i, value in enumerate(self._losses) if not value.isfinite()]
        place = torch.tensor(float(trainer.global_rank if culprits else trainer.world_size), device=trainer.strategy.root_device)
        source = int(trainer.strategy.reduce(place, reduce_op="min").item()) % trainer.world_size
        network: nn.Module = pl_module.network  # type: ignore[assignment]
        with trainer.precision_plugin.forward_context():
            statistics = probe(network, self._patches[culprits[0] if culprits else -1])
        activations = ", ".join(f"{name} {values['max_abs']:.3g}" for name, values in statistics.items())
        text = (
            f"step {trainer.global_step + 1}: loss {loss.item():.4g}, gradient norm {norm.item():.4g}, the last of {self.patience} "
            f"consecutive steps (callbacks.guard.patience) skipped because their loss or gradient was not finite; "
            f"largest activations of this batch by layer: {activations}; {_how_to_resume(trainer)}"
        )
        return trainer.strategy.broadcast(text, src=source)


def step_was_skipped(trainer: lightning.Trainer) -> bool:
    """Return whether a guard skipped the last step."""
    guards = [callback for callback in trainer.callbacks if isinstance(callback, Guard)]  # type: ignore[attr-defined]
    return any(guard.skipped_step == trainer.global_step > 0 for guard in guards)


def _gradient_norm(trainer: lightning.Trainer, optimizer: Optimizer) -> Tensor:
    """Return the L2 norm of all gradients, a scalar on the device."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).to(trainer.strategy.root_device)
    if isinstance(trainer.strategy, FSDPStrategy):  # each process holds a shard of every gradient
        norm = trainer.strategy.reduce(norm.square(), reduce_op="sum").sqrt()
    return norm


def _how_to_resume(trainer: lightning.Trainer) -> str:
    """Describe how to resume from the last checkpoint, which is good because bad steps are skipped, with more stable settings."""
    file = Path(trainer.default_root_dir) / LAST
    if not file.is_file():
        return "there is no checkpoint yet (checkpoint_every): restart with a lower optim.lr or with trainer.gradient_clip_val"
    step = torch.load(file, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    folder = Path(trainer.default_root_dir)
    config = OmegaConf.to_container(read_saved_config(folder / CONFIG), resolve=False) if (folder / CONFIG).is_file() else {}
    command = resume_command(folder, config)
    remedy = "trainer.gradient_clip_val=0.5" if trainer.precision == "32-true" else "trainer.precision=32-true"
    return f"last good checkpoint: {os.path.relpath(file)}, step {step}; to resume from it: {command} {remedy}"
