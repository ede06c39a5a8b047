"""The probe callback: log statistics of each group's output during training to dynamics.csv and the loggers."""

import csv
from pathlib import Path
from typing import Annotated, Any

import lightning
from annotated_types import Ge, Interval
from torch import nn
from torch.utils.data import default_collate

from irformer.data.samples import to_batch
from irformer.dynamics.features import probe

COLUMNS = ("step", "layer", "name", "statistic", "value")


class Probe(lightning.Callback):
    """Every few steps, passes a fixed batch of training patches through the network and records statistics of its groups' outputs.

    The batch is the same at every step and for every norm. The network is in evaluation mode, without gradients, with the raw weights
    (not their average). Rows are written to dynamics.csv in the run's folder: step, layer (0 is the first group), name of the group,
    statistic (see `irformer.dynamics.statistics`), value. The loggers get them as dynamics/STATISTIC/LAYER.

    Args:
        every: steps between two probes; the untrained network and the last step are always probed.
        images: number of patches in the batch.
    """

    def __init__(self, every: Annotated[int, Ge(1)] = 100, images: Annotated[int, Interval(ge=1, le=1024)] = 4) -> None:
        self.every = every
        self.images = images
        self._last_step = -1

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Prepare the batch."""
        samples = trainer.datamodule.samples  # type: ignore[attr-defined]
        batch = default_collate([samples[i] for i in range(self.images)])
        on_device = {name: values.to(pl_module.device) for name, values in batch.items()}
        self._batch = to_batch(on_device, samples.task, samples.seed)["lq"]
        self._path = Path(trainer.default_root_dir) / "dynamics.csv"

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Probe the untrained network."""
        if trainer.global_step == 0:
            with trainer.profiler.profile("probe"):  # type: ignore[attr-defined]
                self._probe(trainer, pl_module)
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Probe every few steps, and once per step with several accumulated batches."""
        step = trainer.global_step
        if step != self._last_step and (step % self.every == 0 or step == trainer.max_steps):
            with trainer.profiler.profile("probe"):  # type: ignore[attr-defined]
                self._probe(trainer, pl_module)
            self._last_step = step

    def _probe(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        network: nn.Module = pl_module.network  # type: ignore[assignment]
        with trainer.precision_plugin.forward_context():
            rows = [
                (trainer.global_step, layer, name, statistic, value)
                for layer, (name, values) in enumerate(probe(network, self._batch).items())
                for statistic, value in values.items()
            ]
        if trainer.is_global_zero:
            with self._path.open("a", newline="") as file:
                csv.writer(file).writerows([*([] if file.tell() else [COLUMNS]), *((*row[:-1], f"{row[-1]:.6g}") for row in rows)])
            for logger in trainer.loggers:
                logger.log_metrics({f"dynamics/{statistic}/{layer}": value for _, layer, _, statistic, value in rows}, trainer.global_step)
