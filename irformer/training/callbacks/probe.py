"""The probe callback: log statistics of a network's layers during training to dynamics.csv and the loggers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning
from annotated_types import Ge, Interval, Len, MinLen
from torch import Tensor, nn
from torch.utils.data import default_collate

from irformer.data.samples import Sample, to_batch
from irformer.dynamics.dynamics_csv import Row, Source, append_rows
from irformer.dynamics.features import measure
from irformer.dynamics.selection import GROUPS, select_layers
from irformer.dynamics.spacing import Spacing

Words = Annotated[Sequence[Annotated[str, MinLen(1)]], Len(1, 64)]


class Probe(lightning.Callback):
    """Every few steps, passes a fixed batch of training patches through the network and records statistics of its layers' outputs.

    The batch is the same at every step and for every norm. The network is in evaluation mode, without gradients, with the raw weights
    (not their average), in the run's precision, and not compiled. Rows are appended to dynamics.csv in the run's folder
    (`irformer.dynamics.dynamics_csv`). The loggers get groups as dynamics/STATISTIC/LAYER, and other layers by name. With several
    processes, only the first one probes.

    Args:
        every: steps between two probes with linear spacing; the untrained network and the last step are always probed.
        images: number of patches in the batch.
        layers: `groups`, `blocks`, `attention`, `mlp`, `norms`, or patterns of module names, in which `*` matches any characters but dots
            and `**` any number of names.
        spacing: `linear`, or `log` for steps at equal ratios.
        per_decade: probes from one power of ten to the next with logarithmic spacing.
        training_batches: also record the statistics on the training batch of the same step, in evaluation mode, after the step; of the
            last one if several are accumulated.
    """

    def __init__(
        self,
        every: Annotated[int, Ge(1)] = 100,
        images: Annotated[int, Interval(ge=1, le=1024)] = 4,
        layers: Words = (GROUPS,),
        spacing: Literal["linear", "log"] = "linear",
        per_decade: Annotated[int, Interval(ge=1, le=1000)] = 10,
        training_batches: bool = False,
    ) -> None:
        self.spacing = Spacing(spacing, every, per_decade)
        self.images = images
        self.words = tuple(layers)
        self.training_batches = training_batches
        self._last_step = -1

    def require_network(self, network: nn.Module) -> None:
        """Check that each word selects layers of the network.

        Raises:
            UserError: one does not.
        """
        select_layers(network, self.words, "callbacks.probe.layers")

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Prepare the batch."""
        if not trainer.is_global_zero:
            return
        samples = trainer.datamodule.samples  # type: ignore[attr-defined]
        batch = default_collate([samples[i] for i in range(self.images)])
        on_device = {name: values.to(pl_module.device) for name, values in batch.items()}
        self._batch = to_batch(on_device, samples.task, samples.seed)["lq"]
        self._path = Path(trainer.default_root_dir) / "dynamics.csv"
        self._network: nn.Module = pl_module.network  # type: ignore[assignment]
        self._layers = select_layers(self._network, self.words, "callbacks.probe.layers")

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Probe the untrained network."""
        if trainer.global_step == 0 and trainer.is_global_zero:
            self._probe(trainer, {"probe": self._batch})
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Sample, batch_idx: int
    ) -> None:
        """Probe every few steps, and once per step with several accumulated batches."""
        step = trainer.global_step
        if step != self._last_step and trainer.is_global_zero and self._is_due(trainer, step):
            self._probe(trainer, {"probe": self._batch} | ({"training": batch["lq"]} if self.training_batches else {}))
        self._last_step = step

    def _is_due(self, trainer: lightning.Trainer, step: int) -> bool:
        return step == trainer.max_steps or self.spacing.contains(step)

    def _probe(self, trainer: lightning.Trainer, batches: dict[Source, Tensor]) -> None:
        """Measure the layers on each batch, by source, and write the results."""
        with trainer.profiler.profile("probe"), trainer.precision_plugin.forward_context():  # type: ignore[attr-defined]
            rows = [
                Row(trainer.global_step, layer.index, layer.name, statistic, value, layer.kind, source)
                for source, batch in batches.items()
                for layer, values, _ in measure(self._network, batch, self._layers)
                for statistic, value in values.items()
            ]
            append_rows(self._path, rows)
            for logger in trainer.loggers:
                logger.log_metrics({_tag(row): row.value for row in rows}, trainer.global_step)


def _tag(row: Row) -> str:
    """Return the name of a value for the loggers."""
    if row.kind == GROUPS and row.source == "probe":
        return f"dynamics/{row.statistic}/{row.layer}"
    return f"dynamics/{row.source}/{row.statistic}/{row.name}"
