"""What a run keeps: averaged weights, the last checkpoint, the best weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from torch import Tensor

from irformer.errors import UserError
from irformer.training.module import RestorationModule
from irformer.weight_files import RECORD


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
        """Move the average a little towards the weights after each step."""
        self._step = trainer.global_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _average(self, averaged: list[Tensor], current: list[Tensor], _updates: Tensor | int) -> None:
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        torch._foreach_lerp_(averaged, current, 1 - decay)


class LastCheckpoint(ModelCheckpoint):
    """checkpoints/last.ckpt: everything that resuming needs, every few steps and at the last step.

    Args:
        folder: of the checkpoints.
        every: steps between two checkpoints.
        record: says at a step, as text, which network the checkpoint holds, so that the file alone rebuilds it.
    """

    def __init__(self, folder: Path, every: int, record: Callable[[int], str]) -> None:
        self.record = record
        super().__init__(dirpath=folder, filename="last", every_n_train_steps=every, save_top_k=1, enable_version_counter=False)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save at the last step too, whatever the interval."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step == trainer.max_steps != self._last_global_step_saved:
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_exception(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException) -> None:
        """Save the step reached where the user can mend what has ended the run, as an image file that is gone.

        Of several processes only one has met with it; the others are within a step, and cannot take part in saving.
        """
        if isinstance(exception, UserError) and trainer.world_size == 1 and trainer.global_step > max(0, self._last_global_step_saved):
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the record into the checkpoint."""
        checkpoint[RECORD] = self.record(trainer.global_step)


class BestWeights(lightning.Callback):
    """checkpoints/best.safetensors: the network with the best validation so far, by the first metric of the protocol.

    It has to stand before `Ema` in the list of callbacks: at the end of a validation, Ema takes the averaged weights away again.

    Args:
        save: writes the network of a step with its validation metrics.
    """

    def __init__(self, save: Callable[[RestorationModule, int, dict[str, float]], None]) -> None:
        self.save = save
        self.best = -float("inf")

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save if this validation is the best."""
        assert isinstance(pl_module, RestorationModule)
        metrics = pl_module.validation_metrics()
        score = next(iter(metrics.values()))
        if score > self.best and not trainer.sanity_checking:
            self.best = score
            if trainer.is_global_zero:
                self.save(pl_module, trainer.global_step, metrics)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score of the interrupted run."""
        self.best = state_dict["best"]
