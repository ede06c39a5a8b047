"""The guard: skip and count steps whose loss or gradient is not finite, and end the run after too many in a row."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

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
from irformer.training.host_copies import HostCopy, over_processes
from irformer.training.lightning_internals import is_logged
from irformer.weights.checkpoints import LAST

_log = logging.getLogger(__name__)


class TooManySkippedStepsError(UserError):
    """The end of a run by the guard. The step at which it is raised is not saved: a resumed run starts from an earlier checkpoint."""


@dataclass(frozen=True)
class _Step:
    """An optimizer step that is being judged.

    Args:
        number: the step, counted from 1.
        findings: whether the loss and the gradient norm are wrong on any process (0 or 1), and their values on this one.
        losses: loss of each accumulated batch.
        patches: degraded patches of each accumulated batch.
        scale_sought: whether fp16's loss scaler may still be looking for its scale, so that an infinite gradient says nothing.
    """

    number: int
    findings: HostCopy
    losses: list[Tensor]
    patches: list[Tensor]
    scale_sought: bool


class Guard(lightning.Callback):
    """Skips optimizer steps with a non-finite loss or gradient; weights, optimizer, average and running statistics remain unchanged.

    A skipped step still counts: its samples are consumed and the learning rate schedule advances. Both loss and gradient are checked,
    because an L1 loss of NaN may have a finite gradient (in PyTorch, the gradient of |x| at NaN is 0). All processes make the same
    decision, even if only one of them has a non-finite value.

    On a GPU with a fused optimizer, the decision stays on the device: the optimizer skips the update by PyTorch's `found_inf` protocol.
    The host reads the decision one step later, so that it never stops the device; only then does it warn, count towards `patience`, and
    end the run. With other optimizers, with fp16 and FSDP, and until the optimizer has taken its first step, the host decides, which
    waits for the device in each step. Both ways give the same bits.

    It logs train/grad_norm (L2 over all parameters, before clipping) and train/skipped_steps (since the run started, across resumes).

    With fp16, the loss scaler finds its scale by gradients that overflow with a finite loss, at the start and occasionally later. Such a
    step counts as skipped, but not towards `patience` until the scale has fallen below 1.

    Lightning's SpikeDetection is different: it checks only the loss, after the optimizer step, and ends the run immediately.

    Args:
        patience: consecutive skipped steps after which the run ends.

    Attributes:
        skipped: steps skipped so far, as far as the host knows.
        skips: whether the last step was skipped: 1 or 0 on the device if the device decided.
    """

    # Device types whose work is queued, so that reading a value stops them.
    queued_devices: ClassVar[tuple[str, ...]] = ("cuda",)

    def __init__(self, patience: Annotated[int, Ge(1)] = 20) -> None:
        self.patience = patience
        self.skipped = 0
        self.skips: bool | Tensor = False
        self._skipped_step = 0  # the last skipped step, counted from 1
        self._consecutive = 0
        self._losses: list[Tensor] = []
        self._patches: list[Tensor] = []
        self._buffers: list[Tensor] = []
        self._kept: list[Tensor] = []
        self._pending: _Step | None = None  # a step that the device has judged
        self._given_up: _Step | None = None  # the step that exhausts the patience
        self._optimizer_started = self._prints = False

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Collect the state that a forward pass changes: the running statistics of batch norms."""
        saved = pl_module.state_dict(keep_vars=True).keys()
        self._buffers = [buffer for name, buffer in pl_module.named_buffers() if name in saved]
        self._skipped_on_device = torch.tensor(float(self.skipped), device=trainer.strategy.root_device)
        self._optimizer_started = any(len(optimizer.state) > 0 for optimizer in trainer.optimizers)
        self._prints = trainer.is_global_zero

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Sample, batch_idx: int) -> None:
        """Keep the patches until the step is judged, and a copy of the running statistics before its first batch."""
        if not self._patches:
            self._kept = [buffer.clone() for buffer in self._buffers]
        self._patches.append(batch["lq"])

    def on_before_backward(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor) -> None:
        """Record the loss of each accumulated batch: its share of the step's loss, times the loss scale."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer) -> None:
        """Skip the step if its loss or gradient is not finite.

        Raises:
            UserError: `patience` consecutive steps were not finite, up to this one or, if the device decides, up to the previous one.
        """
        self.settle(trainer)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        loss = torch.stack(self._losses).sum() / scale
        norm = _gradient_norm(trainer, optimizer)
        values = torch.stack([loss, norm])
        wrong = over_processes((~values.isfinite()).float(), "max")
        judged = _Step(
            trainer.global_step + 1, HostCopy(torch.cat([wrong, values])), self._losses, self._patches, scaler is not None and scale >= 1
        )
        self._losses, self._patches = [], []
        if self._device_decides(trainer, optimizer):
            self._pending = judged
            self.skips = wrong.amax()
            self._skipped_on_device += self.skips
            optimizer.found_inf = self.skips  # type: ignore[attr-defined]
            for buffer, kept in zip(self._buffers, self._kept, strict=True):
                buffer.copy_(torch.where(self.skips > 0, kept, buffer))
        else:
            self.skips = self._count(judged)
            self._end_if_given_up(trainer)
            if self.skips:
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.grad = None  # optimizers skip parameters without a gradient, including state and weight decay
                for buffer, kept in zip(self._buffers, self._kept, strict=True):
                    buffer.copy_(kept)
            self._skipped_on_device.fill_(self.skipped)
            self._optimizer_started |= not self.skips
        if is_logged(trainer):
            pl_module.log("train/grad_norm", norm)
            pl_module.log("train/skipped_steps", self._skipped_on_device)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remove the decision from the optimizer, as PyTorch's loss scaler does after each step."""
        if self._pending is not None:
            for optimizer in trainer.optimizers:
                vars(optimizer).pop("found_inf", None)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Read the decision about the last step, as at the end of the run."""
        self.settle(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Read the decision about the last step."""
        self.settle(trainer)

    def settle(self, trainer: lightning.Trainer) -> None:
        """Wait for the decision about the last step if it is still on the device. All processes must call this.

        Raises:
            UserError: `patience` consecutive steps were not finite.
        """
        self._read_pending()
        self._end_if_given_up(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the counters, including the last step."""
        self._read_pending()
        return {"skipped": self.skipped, "skipped_step": self._skipped_step, "in_a_row": self._consecutive}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counters."""
        self.skipped = state_dict["skipped"]
        self._skipped_step = state_dict["skipped_step"]
        self._consecutive = state_dict["in_a_row"]

    def _device_decides(self, trainer: lightning.Trainer, optimizer: Optimizer) -> bool:
        """Return whether the optimizer itself can skip this step.

        Not its first one: PyTorch's SGD would leave its momentum uninitialized.
        """
        return (
            trainer.strategy.root_device.type in self.queued_devices
            and self._optimizer_started
            and type(optimizer) in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
            and getattr(optimizer, "_step_supports_amp_scaling", False)
            and getattr(trainer.precision_plugin, "scaler", None) is None
            and not isinstance(trainer.strategy, FSDPStrategy)
        )

    def _read_pending(self) -> None:
        if self._pending is not None:
            judged, self._pending = self._pending, None
            self._count(judged)

    def _count(self, step: _Step) -> bool:
        """Count a step, warn about the first skipped one of a sequence, and return whether it was skipped."""
        wrong_loss, wrong_gradient, loss, norm = step.findings.read()
        if not (wrong_loss or wrong_gradient):
            self._consecutive = 0
            return False
        self.skipped += 1
        self._skipped_step = step.number
        if wrong_loss or not step.scale_sought:
            self._consecutive += 1
            if self._consecutive == 1 and self._prints:
                numbers = f"loss {loss:.4g}, gradient norm {norm:.4g}"
                _log.warning("step %d: %s: step skipped, weights unchanged (%d so far)", step.number, numbers, self.skipped)
            if self._consecutive >= self.patience:
                self._given_up = step
        return True

    def _end_if_given_up(self, trainer: lightning.Trainer) -> None:
        if self._given_up is not None:
            raise TooManySkippedStepsError(self._diagnosis(trainer, self._given_up))

    def _diagnosis(self, trainer: lightning.Trainer, step: _Step) -> str:
        """Describe the failure, as seen by the first process with a non-finite loss; all processes must call this."""
        culprits = [i for i, value in enumerate(step.losses) if not value.isfinite()]
        place = torch.tensor(float(trainer.global_rank if culprits else trainer.world_size), device=trainer.strategy.root_device)
        source = int(trainer.strategy.reduce(place, reduce_op="min").item()) % trainer.world_size
        network: nn.Module = trainer.lightning_module.network  # type: ignore[assignment]
        with trainer.precision_plugin.forward_context():
            statistics = probe(network, step.patches[culprits[0] if culprits else -1])
        activations = ", ".join(f"{name} {values['max_abs']:.3g}" for name, values in statistics.items())
        *_, loss, norm = step.findings.read()
        text = (
            f"step {step.number}: loss {loss:.4g}, gradient norm {norm:.4g}, the last of {self.patience} "
            f"consecutive steps (callbacks.guard.patience) skipped because their loss or gradient was not finite; "
            f"largest activations of this batch by layer: {activations}; {_how_to_resume(trainer)}"
        )
        return trainer.strategy.broadcast(text, src=source)


def guard_of(trainer: lightning.Trainer) -> Guard | None:
    """Return the guard of a run, or None if it has none."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, Guard)), None)  # type: ignore[attr-defined]


def _gradient_norm(trainer: lightning.Trainer, optimizer: Optimizer) -> Tensor:
    """Return the L2 norm of all gradients, a scalar on the device."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).to(trainer.strategy.root_device)
    if isinstance(trainer.strategy, FSDPStrategy):  # each process holds a shard of every gradient
        norm = over_processes(norm.square(), "sum").sqrt()
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
