"""The LightningModule: training step, validation step and optimizer."""

import logging
import math
from collections.abc import Callable
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from irformer.data.samples import Sample, to_batch
from irformer.data.test_sets import TestPair
from irformer.evaluation.evaluate import evaluate_image
from irformer.evaluation.restorers import NetworkRestorer, NonFiniteOutputError
from irformer.tasks.task import Task
from irformer.training.feature_kl import FeatureKL
from irformer.training.host_copies import over_processes
from irformer.training.lightning_internals import is_logged
from irformer.training.losses import WeightedSum
from irformer.training.mixup import Mixup
from irformer.training.network_call import NetworkCall

_log = logging.getLogger(__name__)

# In float64, means over images do not depend on how the images are distributed over processes. Apple's GPUs support only float32.
_MEANS = torch.float32 if torch.backends.mps.is_available() else torch.float64


class RestorationModule(lightning.LightningModule):
    """Trains a network on uint8 batches and validates it on whole images under the task's protocol.

    Args:
        network: maps [B, C, h, w] in [0, 1] to [B, C, scale*h, scale*w].
        task: the task; its metrics and protocol evaluate the validation images.
        loss: maps a restored and a clean batch to a scalar.
        optimizer: builds the optimizer from the parameters.
        schedule: factor of the learning rate at each optimizer step.
        seed: seed of the run; random numbers of a step (drop path, mixup) depend only on (seed, batch, process), so a resumed run draws
            the same ones.
        mixup: blends the patches of a batch, or None.
        call: how training steps call the network; None calls it as it is.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        loss: nn.Module,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[[int], float],
        seed: int,
        mixup: Mixup | None = None,
        call: NetworkCall | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.loss = loss
        for term in loss.modules():
            if isinstance(term, FeatureKL):
                term.watch(network)
        self.build_optimizer = optimizer
        self.schedule = schedule
        self.seed = seed
        self.mixup = mixup
        self.call = call or NetworkCall()
        self.validation_means = {name: MeanMetric(nan_strategy=math.nan).set_dtype(_MEANS) for name in task.metrics}
        self._metrics = nn.ModuleList(self.validation_means.values())  # registered, so that they move to the device

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move patches to the device; the restorer moves whole images, one at a time."""
        return batch if isinstance(batch, TestPair) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Keep the sample indices on the host as numbers: reading them from the device would synchronize with it."""
        return {**batch, "index": batch["index"].tolist()} if self.trainer.training else batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Convert uint8 patches to floats on the device, and degrade them there if needed: a quarter of the bytes are transferred."""
        return to_batch(batch, self.task, self.seed) if self.trainer.training else batch

    def on_train_batch_start(self, batch: Sample, batch_idx: int) -> None:
        """Seed PyTorch with the run's seed, the index of the batch (all accumulated batches counted) and the rank.

        A resumed run thus draws the same random numbers as an uninterrupted one. Only the generators in use are seeded:
        `torch.manual_seed` also records a stack trace for each kind of device that is not in use, which takes most of a millisecond.
        """
        seed = int(np.random.SeedSequence((self.seed, batch_idx, self.global_rank)).generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Return the loss of a batch {lq, hq}, in float32 at any network precision; the terms of a weighted sum are logged by name."""
        lq, hq = batch["lq"], batch["hq"]
        if self.mixup is not None:
            lq, hq = self.mixup(lq, hq, self.seed, batch_idx, self.global_rank)
        restored = self.call(self.network, lq)
        parts = {}
        with torch.autocast(self.device.type, enabled=False):
            restored = restored.float()
            if isinstance(self.loss, WeightedSum):
                parts = self.loss.parts(restored, hq)
                loss = self.loss.total(parts)
            else:
                loss = self.loss(restored, hq)
        if is_logged(self.trainer):
            shown = {f"train/loss_{name}": value for name, value in parts.items()} | {"train/loss": loss}
            means = over_processes(torch.stack(list(shown.values())).detach(), "mean")
            self.log_dict(dict(zip(shown, means, strict=True)))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics of the previous validation."""
        for mean in self.validation_means.values():
            mean.reset()

    def validation_step(self, pair: TestPair | None, batch_idx: int) -> dict[str, Any]:
        """Restore and evaluate one image in full precision, as in the benchmark; return the restored image for other callbacks.

        A process with one image less than the others gets None for the last one. If the network's output is not finite, the metrics and
        their means are NaN, so this validation cannot be the best. Training continues, because it may recover.
        """
        if pair is None:
            return {}
        restorer = NetworkRestorer(self.network, self.task.protocol.padding, self.device)
        with torch.autocast(self.device.type, enabled=False):
            try:
                metrics, restored = evaluate_image(restorer, pair, self.task)
                outputs = {"restored": restored}
            except NonFiniteOutputError:
                metrics, outputs = dict.fromkeys(self.task.metrics, math.nan), {}
        for name, value in metrics.items():
            self.validation_means[name].update(value)
        return outputs

    def on_validation_epoch_end(self) -> None:
        """Log the means over the images of all processes."""
        for name, mean in self.validation_means.items():
            self.log(f"val/{name}", mean)
        if any(math.isnan(value) for value in self.validation_metrics().values()):
            _log.warning(
                "validation at step %d: the network's output is NaN or infinite; the metrics are nan, and this validation is not the best",
                self.trainer.global_step,
            )

    def validation_metrics(self) -> dict[str, float]:
        """Return the means over the images of the current validation, over all processes."""
        return {name: mean.compute().item() for name, mean in self.validation_means.items()}

    def configure_optimizers(self) -> Any:
        """Return the optimizer and the schedule, which is updated at each optimizer step."""
        optimizer = self.build_optimizer(self.network.parameters())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, self.schedule), "interval": "step"}}
