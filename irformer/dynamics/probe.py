"""The probe: statistics of every group's output while a network trains, to dynamics.csv and the loggers."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import lightning
import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.utils.data import default_collate

from irformer.data.samples import to_batch
from irformer.dynamics.statistics import STATISTICS

COLUMNS = ("step", "layer", "name", "statistic", "value")


class Probe(lightning.Callback):
    """Every few steps, passes a fixed batch of training patches through the network and writes what its groups put out.

    The batch is the same at every step and for every norm, in evaluation mode and without gradients, with the weights that are being
    trained (not their average). The rows go to dynamics.csv in the run's folder: step, layer (0 is the first group), name of the group,
    statistic (see `irformer.dynamics.statistics`), value; and to the loggers as dynamics/STATISTIC/LAYER.

    Args:
        every: steps between two probes; the start and the end are probed too.
        images: patches in the batch.
    """

    def __init__(self, every: Annotated[int, Ge(1)] = 100, images: Annotated[int, Interval(ge=1, le=1024)] = 4) -> None:
        self.every = every
        self.images = images
        self._last_step = -1

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the batch."""
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
        """Probe when it is time; a step of several accumulated batches is probed once."""
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


def probe(network: nn.Module, batch: Tensor) -> dict[str, dict[str, float]]:
    """Statistics of the output of each of a network's groups for a batch.

    Args:
        network: has `groups` and `channels_first`.
        batch: [B, C, H, W] in [0, 1].

    Returns:
        For each group, in the order of depth, the value of each statistic.
    """
    taken: dict[str, dict[str, Tensor]] = {}

    def take(name: str, features: Tensor) -> None:
        if network.channels_first:
            features = features.movedim(1, -1)
        taken[name] = {statistic: function(features) for statistic, function in STATISTICS.items()}

    groups: dict[str, nn.Module] = network.groups  # type: ignore[assignment]
    hooks = [group.register_forward_hook(lambda _m, _i, out, name=name: take(name, out)) for name, group in groups.items()]
    try:
        with evaluation_mode(network), torch.no_grad():
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: {statistic: value.item() for statistic, value in values.items()} for name, values in taken.items()}


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode for a while, each module as it was afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
