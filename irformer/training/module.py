"""The LightningModule: one training step, one validation image, the optimizer."""

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
from irformer.training.losses import WeightedSum
from irformer.training.mixup import Mixup

_log = logging.getLogger(__name__)

# Means over images do not depend on how these are shared out, but for Apple's GPUs, which have no more than this.
_MEANS = torch.float32 if torch.backends.mps.is_available() else torch.float64


class RestorationModule(lightning.LightningModule):
    """Trains a network on uint8 batches and validates it on whole images under the task's protocol.

    Args:
        network: [B, C, h, w] in [0, 1] to [B, C, scale*h, scale*w].
        task: its metrics and protocol measure the validation images.
        loss: of restored and clean batch, a scalar.
        optimizer: builds the optimizer from the parameters.
        schedule: factor of the learning rate at each optimizer step.
        seed: of the run; what a step draws (drop path, mixup) depends on (seed, batch, process) alone, so that a resumed run draws the
            same.
        mixup: blends the patches of a batch, or None.
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
    ) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.loss = loss
        self.build_optimizer = optimizer
        self.schedule = schedule
        self.seed = seed
        self.mixup = mixup
        self.validation_means = {name: MeanMetric(nan_strategy=math.nan).set_dtype(_MEANS) for name in task.metrics}
        self._metrics = nn.ModuleList(self.validation_means.values())  # so that they move to the device with the rest

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Send patches to the device; whole images are sent by the restorer, one at a time."""
        return batch if isinstance(batch, TestPair) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Keep the samples' indices here as numbers: to read them back from the device would be to wait for it."""
        return {**batch, "index": batch["index"].tolist()} if self.trainer.training else batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn uint8 patches into floats on the device, and degrade them there if they are not yet: a quarter of the bytes travel."""
        return to_batch(batch, self.task, self.seed) if self.trainer.training else batch

    def on_train_batch_start(self, batch: Sample, batch_idx: int) -> None:
        """Seed what this batch draws: by the run's seed, the number of the batch (step times accumulated batches, and which of them) and
        the process, so that a resumed run draws what it would have drawn.
        """
        torch.manual_seed(int(np.random.SeedSequence((self.seed, batch_idx, self.global_rank)).generate_state(1, np.uint64)[0]))

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """The loss of one batch {lq, hq}, in float32 whatever the network computes in; a weighted sum's terms are logged by name."""
        lq, hq = batch["lq"], batch["hq"]
        if self.mixup is not None:
            lq, hq = self.mixup(lq, hq, self.seed, batch_idx, self.global_rank)
        restored = self.network(lq)
        with torch.autocast(self.device.type, enabled=False):
            restored = restored.float()
            if isinstance(self.loss, WeightedSum):
                parts = self.loss.parts(restored, hq)
                loss = self.loss.total(parts)
                self.log_dict({f"train/loss_{name}": value for name, value in parts.items()}, sync_dist=True)
            else:
                loss = self.loss(restored, hq)
        self.log("train/loss", loss, sync_dist=True)  # the mean over the processes' shares
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the images of the last validation."""
        for mean in self.validation_means.values():
            mean.reset()

    def validation_step(self, pair: TestPair | None, batch_idx: int) -> dict[str, Any]:
        """Restore and measure one image, in full precision as in the benchmark; returns the restored image for those who show it.

        A process whose share of the images is one short gets None for the last. Where the network's output is not finite, the metrics are
        NaN, and so is their mean, so that this validation cannot be the best; training goes on, since it may recover.
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
        """Log the means, on all processes, whatever their share."""
        for name, mean in self.validation_means.items():
            self.log(f"val/{name}", mean)
        if any(math.isnan(value) for value in self.validation_metrics().values()):
            _log.warning(
                "validation at step %d: the network's output is NaN or infinite; the metrics are nan, and this validation is not the best",
                self.trainer.global_step,
            )

    def validation_metrics(self) -> dict[str, float]:
        """Means over the images of the validation under way, over all processes."""
        return {name: mean.compute().item() for name, mean in self.validation_means.items()}

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule, the latter by optimizer steps."""
        optimizer = self.build_optimizer(self.network.parameters())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, self.schedule), "interval": "step"}}
