"""Crops of validation images in TensorBoard and Weights & Biases, at the same place at every validation."""

from collections.abc import Sequence
from typing import Annotated, Any

import cv2
import lightning
import numpy as np
import torch
from annotated_types import Ge
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray
from PIL import Image

from irformer.data.test_sets import TestPair, TestSet, evenly_spaced
from irformer.evaluation.restorers import to_image, to_tensor
from irformer.training.host_copies import over_processes


class ValidationCrops(lightning.Callback):
    """Logs crops of the same restored images at every validation, in TensorBoard and Weights & Biases.

    Each image has one tag, `val/NAME`, and its crop is always at the same place, where the ground truth has the strongest edges: the step
    slider flips through the training in place. The first validation also logs the input, enlarged to the size of the output, as
    `val/NAME (input)` and the ground truth as `val/NAME (truth)`. An output that is not finite is omitted.

    Args:
        images: the largest number of images, evenly spaced over those that the run validates on.
        crop: side of the crop, in HQ pixels; smaller images are shown whole.
    """

    def __init__(self, images: Annotated[int, Ge(0)] = 4, crop: Annotated[int, Ge(1)] = 192) -> None:
        self.images = images
        self.crop = crop
        self._references_logged = False
        self._sizes: dict[int, tuple[int, ...]] = {}  # of the crops, by the index of the image
        self._restored: dict[int, NDArray[np.uint8]] = {}  # crops of this process, by the place of the image among the chosen ones

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Forget the crops of a validation that was interrupted."""
        self._restored.clear()

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: TestPair | None,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the crop of a chosen image."""
        index = batch_idx * trainer.world_size + trainer.global_rank  # as in RestorationData.val_dataloader
        chosen = self._chosen(_validation(trainer))
        if batch is not None and index in chosen and "restored" in outputs and _image_loggers(trainer):
            self._restored[chosen.index(index)] = outputs["restored"][detailed_crop(batch.hq, self.crop)]

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Collect the crops of all processes, and log them."""
        validation = _validation(trainer)
        chosen = self._chosen(validation)
        loggers = _image_loggers(trainer)
        if not chosen or not loggers:
            return
        crops, present = self._gathered(len(chosen), validation.task.channels, pl_module.device)
        references, self._references_logged = not self._references_logged, True
        if not trainer.is_global_zero:
            return
        for place, index in enumerate(chosen):
            name = f"val/{validation.pairs[index].name}"
            if references or index not in self._sizes:
                pair = validation[index]
                part = detailed_crop(pair.hq, self.crop)
                self._sizes[index] = pair.hq[part].shape[:2]
            if references:
                lq = enlarge(to_image(to_tensor(pair.lq)), *pair.hq.shape[:2])
                _log(loggers, f"{name} (input)", lq[part], trainer.global_step)
                _log(loggers, f"{name} (truth)", pair.hq[part], trainer.global_step)
            if present[place]:
                height, width = self._sizes[index]
                _log(loggers, name, crops[place, :height, :width], trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Whether inputs and ground truths are logged, so that a resumed run does not log them again."""
        return {"references_logged": self._references_logged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Read what was logged before."""
        self._references_logged = state_dict["references_logged"]

    def _chosen(self, validation: TestSet) -> list[int]:
        count = min(self.images, len(validation))
        return evenly_spaced(count, len(validation)) if count else []

    def _gathered(self, count: int, channels: int, device: torch.device) -> tuple[NDArray[np.uint8], list[bool]]:
        """Return the crops of all processes, padded to [count, crop, crop, C], and which of them there are."""
        crops = torch.zeros((count, self.crop, self.crop, channels), dtype=torch.uint8)
        present = torch.zeros(count, dtype=torch.uint8)
        for place, crop in self._restored.items():
            crops[place, : crop.shape[0], : crop.shape[1]] = torch.from_numpy(np.ascontiguousarray(crop))
            present[place] = 1
        self._restored.clear()
        # Each image was validated by one process, so the sum is that process's crop.
        whole, counts = (over_processes(values.to(device), "sum").cpu() for values in (crops, present))
        return whole.numpy(), [bool(value) for value in counts.tolist()]


def _validation(trainer: lightning.Trainer) -> TestSet:
    return trainer.datamodule.validation  # type: ignore[attr-defined]


def _image_loggers(trainer: lightning.Trainer) -> list[Logger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger | WandbLogger)]


def _log(loggers: Sequence[Logger], name: str, pixels: NDArray[np.uint8], step: int) -> None:
    """Log an image [H, W, C] with its exact pixels."""
    rgb = np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, rgb, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            # A tensor would be stretched to the full range, so its colors would change from step to step.
            logger.log_image(name, [Image.fromarray(np.ascontiguousarray(rgb))], step)


def detailed_crop(image: NDArray[np.uint8], side: int) -> tuple[slice, slice]:
    """Return the square of [H, W, C] with the strongest edges, searched on a grid with a spacing of half its side."""
    height, width = image.shape[:2]
    edges = cv2.integral(np.abs(cv2.Laplacian(image.mean(2), cv2.CV_64F)))
    rows, columns = min(side, height), min(side, width)

    def strength(place: tuple[int, int]) -> float:
        top, left = place
        return float(edges[top + rows, left + columns] - edges[top, left + columns] - edges[top + rows, left] + edges[top, left])

    spacing = max(1, side // 2)
    places = [(top, left) for top in range(0, height - rows + 1, spacing) for left in range(0, width - columns + 1, spacing)]
    top, left = max(places, key=strength)
    return slice(top, top + rows), slice(left, left + columns)


def enlarge(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize [h, w, C] to [height, width, C] with nearest-neighbor interpolation."""
    enlarged = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(enlarged, np.uint8).reshape(height, width, image.shape[2])  # OpenCV drops the axis of a single channel
