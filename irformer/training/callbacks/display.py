"""Display of a running training: progress on the terminal, image grids in TensorBoard."""

import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any

import cv2
import lightning
import numpy as np
from annotated_types import Ge
from lightning.pytorch.callbacks.progress import ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from numpy.typing import NDArray
from torchvision.utils import make_grid
from tqdm import tqdm

from irformer.data.test_sets import TestPair
from irformer.evaluation.restorers import to_image, to_tensor
from irformer.training.host_copies import HostCopy
from irformer.training.module import RestorationModule
from irformer.training.run_log import log_only

# Steps on a CPU that are worth a warning: the smallest network takes hours for them.
_LONG_RUN = 50_000


# Seconds between two updates of the bar.
_BAR_SECONDS = 0.5


@dataclass(frozen=True)
class _Update:
    """An update of the display that waits for its loss: whether it moves the bar, and the line to print, if any, without the loss."""

    loss: HostCopy
    moves: bool
    line: str | None


class Progress(ProgressBar):
    """Shows steps, steps per second, loss, last validation and remaining time: a bar on a terminal, periodic lines in log files.

    Args:
        line_seconds: seconds between two lines.
    """

    def __init__(self, line_seconds: Annotated[float, Ge(0)] = 30.0) -> None:
        super().__init__()
        self.line_seconds = line_seconds
        self._enabled = True
        self._bar: tqdm | None = None
        self._last_line = self._last_moved = 0.0
        self._shown: dict[str, str] = {}
        self._due: _Update | None = None

    def disable(self) -> None:
        """Disable the display; Lightning calls this on all processes except the main one."""
        self._enabled = False

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the bar."""
        self._last_line = self._started = time.monotonic()
        self._first_step = trainer.global_step
        steps_left = trainer.max_steps - trainer.global_step
        if self._enabled and trainer.strategy.root_device.type == "cpu" and steps_left >= _LONG_RUN:
            print(
                f"note: {steps_left:,} steps take days on a CPU with a tiny network and years with a published one; for a first look: "
                "model=swinir_tiny debug=fast (seconds), make demo (minutes), or fewer steps by trainer.max_steps=NUMBER",
                flush=True,
            )
        if self._enabled and sys.stderr.isatty():
            self._bar = tqdm(total=trainer.max_steps, initial=trainer.global_step, unit="it", dynamic_ncols=True, smoothing=0.05)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the display. What is due is shown one step later, when the device has computed its loss, except after the last step."""
        if not self._enabled:
            return
        self._show_due()
        now = time.monotonic()
        step, last = trainer.global_step, trainer.global_step == trainer.max_steps
        if self._bar is not None:
            self._bar.n = step
        moves = self._bar is not None and (now - self._last_moved > _BAR_SECONDS or last)
        line = None
        if now - self._last_line > self.line_seconds or last:
            self._last_line = now
            rate = (step - self._first_step) / max(now - self._started, 1e-9)
            left = (trainer.max_steps - step) / max(rate, 1e-9)
            line = f"step {step}/{trainer.max_steps}  {rate:.2f} it/s  {tqdm.format_interval(left)} left"
        if moves:
            self._last_moved = now
        if moves or line is not None:
            self._due = _Update(HostCopy(outputs["loss"]), moves, line)
        if last:
            self._show_due()

    def _show_due(self) -> None:
        if self._due is None:
            return
        due, self._due = self._due, None
        loss = f"{due.loss.read()[0]:.4f}"
        if due.moves and self._bar is not None:
            self._bar.set_postfix({"loss": loss, **self._shown})
        if due.line is not None:
            line = "  ".join([due.line, f"loss {loss}", *(f"{name} {value}" for name, value in self._shown.items())])
            if self._bar is None:
                print(line, flush=True)
            else:
                log_only.info(line)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show what is due before a validation, which may take long."""
        self._show_due()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Store the validation metrics for the next update."""
        assert isinstance(pl_module, RestorationModule)
        metrics = pl_module.task.metrics
        for name, value in trainer.callback_metrics.items():
            group, _, metric = name.partition("/")
            if group == "val":
                self._shown[name] = f"{value.item():.{metrics[metric].digits if metric in metrics else 4}f}"

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._show_due()
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ImageGrids(lightning.Callback):
    """Logs images at every validation: degraded (enlarged to the same size), restored and clean, side by side.

    Args:
        images: number of images, from the start of the validation set.
        crop: side of the center crop that is shown, in HQ pixels.
    """

    def __init__(self, images: Annotated[int, Ge(0)] = 4, crop: Annotated[int, Ge(1)] = 192) -> None:
        self.images = images
        self.crop = crop

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: TestPair,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Log the grid of one image."""
        if batch_idx >= self.images or not trainer.is_global_zero or "restored" not in outputs:
            return
        lq = enlarge(to_image(to_tensor(batch.lq)), *batch.hq.shape[:2])
        grid = make_grid([to_tensor(centre_crop(image, self.crop))[0] for image in (lq, outputs["restored"], batch.hq)], padding=4)
        title = f"val/{batch.name} (LQ, restored, HQ)"
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(title, grid, trainer.global_step)
            elif isinstance(logger, WandbLogger):
                logger.log_image(title, [grid], trainer.global_step)


def enlarge(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize [h, w, C] to [height, width, C] with nearest-neighbor interpolation."""
    enlarged = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(enlarged, np.uint8).reshape(height, width, image.shape[2])  # OpenCV drops the axis of a single channel


def centre_crop(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the center of [H, W, C], at most `side` pixels wide and high."""
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]
