"""The probe callback: log statistics of a network's layers during training to dynamics.csv, vectors.csv and the loggers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning
import numpy as np
from annotated_types import Ge, Interval, Len, MinLen
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import default_collate

from irformer.data.samples import Sample, to_batch
from irformer.dynamics.dynamics_csv import Row, Source, append_rows
from irformer.dynamics.features import measure
from irformer.dynamics.parameters import (
    FINAL_NORM,
    copy_weights,
    final_vectors,
    gradient_norms,
    measure_weights,
    position_biases,
    update_ratios,
)
from irformer.dynamics.selection import GROUPS, select_layers
from irformer.dynamics.spacing import Spacing
from irformer.dynamics.vectors_csv import VectorRow, append_vectors
from irformer.models.interface import groups_of

Words = Annotated[Sequence[Annotated[str, MinLen(1)]], Len(1, 64)]

_KEY = "callbacks.probe.layers"


class Probe(lightning.Callback):
    """Every few steps, passes a fixed batch of training patches through the network and records statistics of its layers' outputs.

    The batch is the same at every step and for every norm. The network is in evaluation mode, without gradients, with the raw weights
    (not their average), in the run's precision, and not compiled. Numbers are appended to dynamics.csv in the run's folder
    (`irformer.dynamics.dynamics_csv`), vectors to vectors.csv (`irformer.dynamics.vectors_csv`). The loggers get the groups' statistics as
    dynamics/STATISTIC/LAYER, and everything else by name. With several processes, only the first one probes.

    Args:
        every: steps between two probes with linear spacing; the untrained network and the last step are always probed.
        images: number of patches in the batch.
        layers: `groups`, `blocks`, `attention`, `mlp`, `norms`, or patterns of module names, in which `*` matches any characters but dots
            and `**` any number of names.
        spacing: `linear`, or `log` for steps at equal ratios.
        per_decade: probes from one power of ten to the next with logarithmic spacing.
        training_batches: also record the statistics on the training batch of the same step, in evaluation mode, after the step; of the
            last one if several are accumulated.
        gradients: also record the norm of the gradient, before clipping, and the ratio of the update to the weights, for each layer.
        weights: also record statistics of the final norm, of position biases and of scale-invariant weights.
        vectors: also write vectors.csv: the energy of each channel in the groups' outputs, the final norm's weight and bias, and, at the
            last step, position biases. With linear spacing, fewer and fewer probes write them as training proceeds.
    """

    def __init__(
        self,
        every: Annotated[int, Ge(1)] = 100,
        images: Annotated[int, Interval(ge=1, le=1024)] = 4,
        layers: Words = (GROUPS,),
        spacing: Literal["linear", "log"] = "linear",
        per_decade: Annotated[int, Interval(ge=1, le=1000)] = 10,
        training_batches: bool = False,
        gradients: bool = True,
        weights: bool = True,
        vectors: bool = True,
    ) -> None:
        self.spacing = Spacing(spacing, every, per_decade)
        self.images = images
        self.words = tuple(layers)
        self.training_batches = training_batches
        self.gradients = gradients
        self.weights = weights
        self.vectors = vectors
        self._last_step = -1
        self._gradient_norms: Tensor | None = None
        self._weights_before: dict[nn.Parameter, Tensor] = {}

    def require_network(self, network: nn.Module) -> None:
        """Check that each word selects layers of the network.

        Raises:
            UserError: one does not.
        """
        select_layers(network, self.words, _KEY)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Prepare the batch."""
        if not trainer.is_global_zero:
            return
        samples = trainer.datamodule.samples  # type: ignore[attr-defined]
        batch = default_collate([samples[i] for i in range(self.images)])
        on_device = {name: values.to(pl_module.device) for name, values in batch.items()}
        self._batch = to_batch(on_device, samples.task, samples.seed)["lq"]
        self._folder = Path(trainer.default_root_dir)
        self._network: nn.Module = pl_module.network  # type: ignore[assignment]
        self._layers = select_layers(self._network, self.words, _KEY)
        self._learned = [layer for layer in self._layers if next(layer.module.parameters(), None) is not None]
        names = {layer.name for layer in self._layers}
        # Vectors and the statistics of the final norm need the groups, which need not be selected.
        self._groups = list(groups_of(self._network))
        self._measured = self._layers + [layer for layer in select_layers(self._network, [GROUPS]) if layer.name not in names]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Probe the untrained network."""
        if trainer.global_step == 0 and trainer.is_global_zero:
            with trainer.profiler.profile("probe"):  # type: ignore[attr-defined]
                self._probe(trainer, {"probe": self._batch})
        self._last_step = trainer.global_step

    def on_before_optimizer_step(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer) -> None:
        """Keep the weights, and compute the norms of their gradients, of a step at which the network is probed."""
        if self.gradients and trainer.is_global_zero and self._learned and self._is_due(trainer, trainer.global_step + 1):
            with trainer.profiler.profile("probe"):  # type: ignore[attr-defined]
                self._gradient_norms = gradient_norms(self._learned)
                self._weights_before = copy_weights(self._learned)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Sample, batch_idx: int
    ) -> None:
        """Probe every few steps, and once per step with several accumulated batches."""
        step = trainer.global_step
        if step != self._last_step and trainer.is_global_zero and self._is_due(trainer, step):
            batches: dict[Source, Tensor] = {"probe": self._batch}
            if self.training_batches:
                batches["training"] = batch["lq"]
            with trainer.profiler.profile("probe"):  # type: ignore[attr-defined]
                self._probe(trainer, batches)
        self._last_step = step

    def _is_due(self, trainer: lightning.Trainer, step: int) -> bool:
        return step == trainer.max_steps or self.spacing.contains(step)

    def _probe(self, trainer: lightning.Trainer, batches: dict[Source, Tensor]) -> None:
        """Measure the layers on each batch, by source, and the weights, and write the results."""
        step = trainer.global_step
        with trainer.precision_plugin.forward_context():
            measured = {source: measure(self._network, batch, self._measured) for source, batch in batches.items()}
        selected = set(self._layers)
        rows = [
            Row(step, layer.index, layer.name, statistic, value, layer.kind, source)
            for source, found in measured.items()
            for layer, values, _ in found
            if layer in selected
            for statistic, value in values.items()
        ]
        energies = {layer.name: energy for layer, _, energy in measured["probe"]}
        rows += self._rows_of_step(step)
        if self.weights:
            last = energies.get(self._groups[-1]) if self._groups else None
            rows += [
                Row(step, place, name, statistic, value, kind, "weights")
                for kind, place, name, values in measure_weights(self._network, last)
                for statistic, value in values.items()
            ]
        append_rows(self._folder / "dynamics.csv", rows)
        for logger in trainer.loggers:
            logger.log_metrics({_tag(row): row.value for row in rows}, step)
        if self.vectors:
            vectors = self._vectors(step, step == trainer.max_steps, energies)
            if vectors:
                append_vectors(self._folder / "vectors.csv", vectors)

    def _rows_of_step(self, step: int) -> list[Row]:
        """Return the norms of the gradients and of the updates of the step that just ended."""
        if self._gradient_norms is None:
            return []
        values = {"gradient_norm": self._gradient_norms, "update_ratio": update_ratios(self._learned, self._weights_before)}
        self._gradient_norms, self._weights_before = None, {}
        return [
            Row(step, layer.index, layer.name, statistic, value, layer.kind, "training")
            for statistic, tensor in values.items()
            for layer, value in zip(self._learned, tensor.tolist(), strict=True)
        ]

    def _vectors(self, step: int, last: bool, energies: Mapping[str, NDArray[np.float64]]) -> list[VectorRow]:
        rows = []
        if step == 0 or last or self.spacing.thinned(step):
            rows += [VectorRow(step, i, name, "channel_energy", energies[name]) for i, name in enumerate(self._groups) if name in energies]
            rows += [VectorRow(step, 0, FINAL_NORM, name, vector) for name, vector in final_vectors(self._network).items()]
        if last:
            tables = position_biases(self._network)
            rows += [VectorRow(step, i, name, "position_biases", table) for i, (name, table) in enumerate(tables.items())]
        return rows


def _tag(row: Row) -> str:
    """Return the name of a value for the loggers."""
    if row.kind == GROUPS and row.source == "probe":
        return f"dynamics/{row.statistic}/{row.layer}"
    return f"dynamics/{row.source}/{row.statistic}/{row.name}"
