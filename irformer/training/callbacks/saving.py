"""Callbacks that save a run's state: averaged weights, the last checkpoint, the best weights."""

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from irformer.core.faults import DISK_FULL
from irformer.core.files import file_sizes, write_atomically
from irformer.errors import UserError
from irformer.training.callbacks.guard import TooManySkippedStepsError, guard_of
from irformer.training.lightning_internals import loop_counters, put_loop_counters, validate_within_training
from irformer.training.module import RestorationModule
from irformer.training.resuming import LOGS, PREVIOUS, STATE
from irformer.training.stopping import StopSignals
from irformer.weights.checkpoints import LAST
from irformer.weights.reading import RECORD

_log = logging.getLogger(__name__)


class Ema(WeightAveraging):
    """Exponential moving average of the weights, used for validation and results, based on Lightning's callback.

    The decay warms up as (1 + step) / (10 + step), so that the average in a short run is not dominated by the initial weights; at the
    published 500,000 iterations this makes no difference. Buffers are copied, not averaged: averaged position indices are meaningless.

    Args:
        decay: weight of the previous average in each step; 0.999 in the official recipes.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False)
        self.decay = decay

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Create the average on the training device: the weights are still on the CPU here, and Lightning would leave it there."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Collect what to average."""
        average = self._average_model
        assert average is not None
        self._started = bool(average.n_averaged > 0)
        self._latest_update_step = trainer.global_step
        self._averaged: list[Tensor] = list(average.module.parameters())
        self._current: list[Tensor] = list(pl_module.parameters())
        self._copied = list(zip(average.module.buffers(), pl_module.buffers(), strict=True))

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after each step that was not skipped; `AveragedModel` itself would read its counter from the device twice."""
        step = trainer.global_step
        if step == self._latest_update_step:  # more batches to accumulate
            return
        self._latest_update_step = step
        guard = guard_of(trainer)
        skipped = False if guard is None else guard.skips
        if not self._started:
            skipped = bool(skipped)
        if skipped is True:
            return
        average = self._average_model
        assert average is not None
        with torch.no_grad():
            if self._started:
                target = self._current if skipped is False else _chosen(skipped, self._averaged, self._current)
                torch._foreach_lerp_(self._averaged, target, 1 - min(self.decay, (1 + step) / (10 + step)))
            else:
                torch._foreach_copy_(self._averaged, self._current)
            for copy, buffer in self._copied:
                copy.copy_(buffer)
            average.n_averaged.add_(1 if skipped is False else skipped == 0)
        self._started = True


def _chosen(first: Tensor, a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    """Return the tensors `a` if the scalar `first` is 1 and `b` if it is 0, without reading it; all values must be finite."""
    chosen = list(torch._foreach_mul(a, first))
    torch._foreach_add_(chosen, torch._foreach_mul(b, 1 - first))
    return chosen


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, renames it once it is on disk, and keeps the previous one.

    If the disk is full, the last good checkpoint is kept, a line reports it, and training continues: the next checkpoint may fit.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: it cannot be written, for a reason other than a full disk.
        """
        path = Path(path)
        keep = path.with_name(PREVIOUS.name) if path.name == LAST.name else None
        try:
            write_atomically(path, lambda temporary: _save(checkpoint, temporary), keep)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            remaining = "the previous one is kept" if path.exists() else "there is none yet; training continues, the next one may fit"
            print(
                f"{os.path.relpath(path)} of step {checkpoint.get('global_step')} could not be written: {error.strerror}; {remaining}",
                flush=True,
            )


def _save(checkpoint: dict[str, Any], file: Path) -> None:
    buffer = io.BytesIO()  # PyTorch's own writer raises an error without errno for a full disk
    torch.save(checkpoint, buffer)
    file.write_bytes(buffer.getbuffer())


class LastCheckpoint(lightning.Callback):
    """Saves checkpoints/last.ckpt for resuming: every few steps, around each validation, at the last step, and on a signal.

    A step is saved once it is complete: its values are in the logs, and its validation is done or recorded as due. Lightning's counters
    are copied at the end of the step's last batch, from where Lightning can resume.

    It is the first callback, so that no other callback has logged anything for the next step when a step is saved. It also makes Lightning
    validate the last step, regardless of the interval, so that the final weights are a candidate for the best ones.

    Args:
        folder: the run's folder.
        every: steps between two checkpoints.
        record: returns the text that describes the network at a step, so that the checkpoint alone rebuilds it.
        stop: the signals that end the run.
    """

    first: ClassVar = True

    def __init__(self, folder: Path, every: int, record: Callable[[int], str], stop: StopSignals) -> None:
        self.folder = folder
        self.every = every
        self.record = record
        self.stop = stop
        self._loops: dict[str, Any] | None = None  # Lightning's counters at the end of the last step; None before the first
        self._step = 0  # the step of these counters
        self._saved: tuple[int, bool] = (0, False)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Install the signal handlers and defer signals to the end of a step."""
        self.stop.install()
        self.stop.hold()
        self._step = trainer.global_step
        self._saved = (self._step, False)

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int) -> None:
        """Save the previous step if it is due, or if a signal was received."""
        if self._loops is None:
            return
        stop = self._stop_requested(trainer)
        if stop or self._step % self.every == 0 or self._saved == (self._step, True):
            self._save(trainer, validation_due=False)
        self._loops = None
        if stop:
            self.stop.stop()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Copy Lightning's counters at the end of a step; request a validation after the last step."""
        if trainer.global_step == self._step:  # more batches to accumulate
            return
        self._step = trainer.global_step
        self._loops = loop_counters(trainer)
        if self._step == trainer.max_steps:
            trainer.should_stop = True

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the step before its validation, so that a signal can end the run immediately until validation is done."""
        if trainer.state.fn == TrainerFn.FITTING and self._loops is not None:
            stop = self._stop_requested(trainer)
            self._save(trainer, validation_due=True)
            if stop:
                self.stop.stop()
        self.stop.install()
        self.stop.release()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Defer signals to the end of a step again."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.stop.hold()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the last step."""
        stop = self._stop_requested(trainer)
        if self._loops is not None:
            self._save(trainer, validation_due=False)
        if stop:
            self.stop.stop()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Handle signals immediately: there is nothing left to save."""
        self.stop.release()

    def on_exception(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException) -> None:
        """Save the current step after a user error, such as a missing image file, so that the user can fix it and resume.

        With several processes, only one has the error; the others are within a step and cannot participate in saving.
        """
        between_steps = self._loops is not None and trainer.training
        can_be_fixed = isinstance(exception, UserError) and not isinstance(exception, TooManySkippedStepsError)
        if can_be_fixed and trainer.world_size == 1 and between_steps:
            self._save(trainer, validation_due=False)
        if self.stop.received is None:
            self.stop.release()  # so that a signal ends a run that hangs after an error

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the record, Lightning's counters and the sizes of the logs to the checkpoint."""
        checkpoint[RECORD] = self.record(trainer.global_step)
        put_loop_counters(checkpoint, self._loops)
        checkpoint[STATE] = {"validation_due": self._saved[1], "sizes": file_sizes(self.folder, LOGS)}

    def _stop_requested(self, trainer: lightning.Trainer) -> bool:
        """Return whether any process has received a signal."""
        return trainer.strategy.reduce_boolean_decision(self.stop.received is not None, all=False)

    def _save(self, trainer: lightning.Trainer, validation_due: bool) -> None:
        guard = guard_of(trainer)
        if guard is not None:
            guard.settle(trainer)  # a step at which the guard ends the run is not saved
        for logger in trainer.loggers:
            logger.save()  # flush the logs before their sizes are recorded
        self._saved = (self._step, validation_due)
        trainer.save_checkpoint(self.folder / LAST)


class DueValidation(lightning.Callback):
    """Repeats the validation in which a run was interrupted before training resumes.

    It is the last callback, so that all others are set up before the validation.
    """

    last: ClassVar = True

    def __init__(self) -> None:
        self._due = False

    def on_load_checkpoint(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read whether a validation is due."""
        self._due = checkpoint[STATE]["validation_due"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Validate the way Lightning's loop does after a batch."""
        if self._due:
            validate_within_training(trainer)


class BestWeights(lightning.Callback):
    """checkpoints/best.safetensors: the network with the best validation so far, by the first metric of the protocol and its direction.

    It precedes `Ema` in the list of callbacks: at the end of a validation, Ema restores the weights that are being trained.

    Args:
        save: writes the network's weights of a step with its validation metrics.
    """

    precedes: ClassVar = (Ema,)

    def __init__(self, save: Callable[[dict[str, Tensor], int, dict[str, float]], None]) -> None:
        self.save = save
        self.best = -float("inf")
        self._higher_is_better = True
        self._images: list[str] = []

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Start from the worst score of the metric."""
        assert isinstance(pl_module, RestorationModule)
        validation = trainer.datamodule.validation  # type: ignore[attr-defined]
        self._images = [f"{validation.name}/{pair.name}" for pair in validation.pairs]
        self._higher_is_better = next(iter(pl_module.task.metrics.values())).higher_is_better
        if not self._higher_is_better and self.best == -float("inf"):
            self.best = float("inf")

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save if this validation is the best."""
        assert isinstance(pl_module, RestorationModule)
        metrics = pl_module.validation_metrics()
        score = next(iter(metrics.values()))
        is_best = score > self.best if self._higher_is_better else score < self.best
        if is_best and not trainer.sanity_checking:
            self.best = score
            state = trainer.strategy.lightning_module_state_dict()  # on all processes: under FSDP each has a share of it
            if trainer.is_global_zero:
                prefix = "network."
                weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
                self.save(weights, trainer.global_step, metrics)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, and the images on which it was measured."""
        return {"best": self.best, "images": self._images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score of the interrupted run, unless this run validates on other images, where it means nothing."""
        images = state_dict.get("images", self._images)  # absent in the checkpoints of older runs
        if images == self._images:
            self.best = state_dict["best"]
        else:
            _log.warning(
                "the run validates on other images than before (%d instead of %d): its next validation replaces the best weights",
                *(len(self._images), len(images)),
            )
