"""Display of a running training: progress on the terminal."""

import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any

import lightning
from annotated_types import Ge
from lightning.pytorch.callbacks.progress import ProgressBar
from tqdm import tqdm

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
