"""What a run keeps: averaged weights, the last checkpoint, the best weights."""

import io
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
from irformer.training.callbacks.guard import step_was_skipped
from irformer.training.lightning_internals import loop_counters, put_loop_counters, validate_within_training
from irformer.training.module import RestorationModule
from irformer.training.resuming import LOGS, PREVIOUS, STATE
from irformer.training.stopping import StopSignals
from irformer.weights.checkpoints import LAST
from irformer.weights.reading import RECORD


class Ema(WeightAveraging):
    """Exponential moving average of the weights, which validation and results use, by Lightning's own callback.

    The decay warms up as (1 + step) / (10 + step), so that a short run is not the average of its own start; at the published 500,000
    iterations that makes no difference. Buffers are copied, not averaged: an average of position indices has no meaning.

    Args:
        decay: weight of the old average in each step; 0.999 in the official recipes.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=self._average)
        self.decay = decay
        self._step = 0

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Keep the average where the weights will be: at this time they are still on the CPU, and Lightning would leave it there."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the average a little towards the weights after each step that was taken."""
        self._step = trainer.global_step
        if step_was_skipped(trainer):
            return
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _average(self, averaged: list[Tensor], current: list[Tensor], _updates: Tensor | int) -> None:
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        torch._foreach_lerp_(averaged, current, 1 - decay)


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, renames it when it is on the disk, and keeps the one before.

    Where there is no room for it, the last good one stays, a line says so, and training goes on: the next one may fit.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a file.

        Raises:
            OSError: it cannot be written, for another reason than room.
        """
        path = Path(path)
        keep = path.with_name(PREVIOUS.name) if path.name == LAST.name else None
        try:
            write_atomically(path, lambda temporary: _save(checkpoint, temporary), keep)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            stays = "the one before stays" if path.exists() else "there is none yet, and the next one may fit"
            print(
                f"{os.path.relpath(path)} of step {checkpoint.get('global_step')} could not be written: {error.strerror}; {stays}",
                flush=True,
            )


def _save(checkpoint: dict[str, Any], file: Path) -> None:
    buffer = io.BytesIO()  # PyTorch's own writer turns a full disk into an error without a number
    torch.save(checkpoint, buffer)
    file.write_bytes(buffer.getbuffer())


class LastCheckpoint(lightning.Callback):
    """checkpoints/last.ckpt: everything that resuming needs, every few steps, around each validation, at the last step, and at a signal.

    A step is saved when it is wholly done: its numbers are in the logs, and the validation that belongs to it is done or noted as due.
    Lightning's own counters are taken at the end of the step's last batch, where Lightning knows how to go on from.

    It is the first callback, so that no other one has logged anything of the next step when a step is saved.
    It sees to the validation of the last step too, whatever the interval, so that the weights at the end are a candidate for the best.

    Args:
        folder: of the run.
        every: steps between two checkpoints.
        record: says at a step, as text, which network the checkpoint holds, so that the file alone rebuilds it.
        stop: the signals that end the run.
    """

    first: ClassVar = True

    def __init__(self, folder: Path, every: int, record: Callable[[int], str], stop: StopSignals) -> None:
        self.folder = folder
        self.every = every
        self.record = record
        self.stop = stop
        self._loops: dict[str, Any] | None = None  # Lightning's counters at the end of the last step; None before the first
        self._step = 0  # that they belong to
        self._saved: tuple[int, bool] = (0, False)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the signals over."""
        self.stop.take()
        self.stop.hold()
        self._step = trainer.global_step
        self._saved = (self._step, False)

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int) -> None:
        """Save the step before this batch where it is time, and where a signal has come."""
        if self._loops is None:
            return
        stop = self._stop_wanted(trainer)
        if stop or self._step % self.every == 0 or self._saved == (self._step, True):
            self._save(trainer, validation_due=False)
        self._loops = None
        if stop:
            self.stop.stop()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take Lightning's counters where a step ends; have the last one validated."""
        if trainer.global_step == self._step:  # more batches to accumulate
            return
        self._step = trainer.global_step
        self._loops = loop_counters(trainer)
        if self._step == trainer.max_steps:
            trainer.should_stop = True

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the step before its validation: until that is done, a signal can end the run at once."""
        if trainer.state.fn == TrainerFn.FITTING and self._loops is not None:
            stop = self._stop_wanted(trainer)
            self._save(trainer, validation_due=True)
            if stop:
                self.stop.stop()
        self.stop.take()
        self.stop.release()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Answer signals at the end of a step again."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.stop.hold()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the last step."""
        stop = self._stop_wanted(trainer)
        if self._loops is not None:
            self._save(trainer, validation_due=False)
        if stop:
            self.stop.stop()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """From here there is nothing to save."""
        self.stop.release()

    def on_exception(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException) -> None:
        """Save the step reached where the user can mend what has ended the run, as an image file that is gone.

        Of several processes only one has met with it; the others are within a step, and cannot take part in saving.
        """
        between_steps = self._loops is not None and trainer.training
        if isinstance(exception, UserError) and trainer.world_size == 1 and between_steps:
            self._save(trainer, validation_due=False)
        if self.stop.received is None:
            self.stop.release()  # a signal can end what hangs after an error

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the record, Lightning's counters and what the logs hold into the checkpoint."""
        checkpoint[RECORD] = self.record(trainer.global_step)
        put_loop_counters(checkpoint, self._loops)
        checkpoint[STATE] = {"validation_due": self._saved[1], "sizes": file_sizes(self.folder, LOGS)}

    def _stop_wanted(self, trainer: lightning.Trainer) -> bool:
        """Whether a signal has come to any of the processes."""
        return trainer.strategy.reduce_boolean_decision(self.stop.received is not None, all=False)

    def _save(self, trainer: lightning.Trainer, validation_due: bool) -> None:
        for logger in trainer.loggers:
            logger.save()  # what has been logged has to be in the files before their sizes are taken
        self._saved = (self._step, validation_due)
        trainer.save_checkpoint(self.folder / LAST)


class DueValidation(lightning.Callback):
    """Does the validation in which a run was interrupted, before it goes on.

    It is the last callback, so that the others are ready for it.
    """

    last: ClassVar = True

    def __init__(self) -> None:
        self._due = False

    def on_load_checkpoint(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]) -> None:
        """See whether there is one."""
        self._due = checkpoint[STATE]["validation_due"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Validate as Lightning's loop does after a batch."""
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

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Start from the worst score of the metric."""
        assert isinstance(pl_module, RestorationModule)
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
        """The best score so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score of the interrupted run."""
        self.best = state_dict["best"]
