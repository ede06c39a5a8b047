"""Monitor a run's throughput, memory, and time spent on data wait, validation, probe and checkpoints."""

import logging
import sys
import time
from typing import Annotated, Any

import lightning
import torch
from annotated_types import Interval
from lightning.pytorch.profilers import Profiler

from irformer.data.samples import Sample
from irformer.training.lightning_internals import DATA_WAIT_ACTION

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)

DATA_WAIT, VALIDATION, PROBE, CHECKPOINTS = "data wait", "validation", "probe", "checkpoints"
_ACTIVITIES = {
    DATA_WAIT_ACTION: DATA_WAIT,  # from the end of one batch to the arrival of the next
    "save_checkpoint": CHECKPOINTS,
    VALIDATION: VALIDATION,
    PROBE: PROBE,
}


class Clock(Profiler):
    """Profiler that measures the time spent in activities other than training steps, with each second assigned to one activity.

    Lightning notifies its profiler when it starts and stops waiting for a batch or saving a checkpoint; irformer's callbacks do so for
    validation and probe. A nested activity (a checkpoint saved during validation) is not counted in the outer one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = dict.fromkeys((DATA_WAIT, VALIDATION, PROBE, CHECKPOINTS), 0.0)
        self._open: list[str] = []
        self._since = 0.0

    def start(self, action_name: str) -> None:
        """Start timing `action_name`, as Lightning or a callback calls it, if it is one of the activities."""
        if action_name in _ACTIVITIES:
            self._settle()
            self._open.append(_ACTIVITIES[action_name])

    def stop(self, action_name: str) -> None:
        """Stop timing `action_name`."""
        if self._open and _ACTIVITIES.get(action_name) == self._open[-1]:
            self._settle()
            self._open.pop()

    def _settle(self) -> None:
        """Add the time since the last change to the innermost open activity."""
        now = time.monotonic()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


class Monitor(lightning.Callback):
    """Logs the throughput and memory of a run, and reports how its time was spent.

    Logged every `trainer.log_every_n_steps` steps, over the time since the previous logging:

    - train/megapixels_per_second: clean (HQ) pixels of all processes' patches per second of training and data wait. HQ pixels make
      different scales comparable: an x4 network produces as many of them from a sixteenth of the input pixels.
    - train/data_wait_share: share of the time of training and data wait in which the training loop waited for its next batch. The time
      that workers spend loading ahead does not count.
    - train/memory_gib: peak memory since the start in GiB, of tensors on the GPU, or of the process on the CPU.

    Lightning's ThroughputMonitor does not fit: it assumes the same batch size in all iterations, which progressive recipes change; it
    includes the time of checkpoints and probes; and it does not measure data wait.

    Args:
        validation_share: warn if validation takes more than this share of the run's time, once the run has lasted a minute.
    """

    def __init__(self, validation_share: Annotated[float, Interval(ge=0, le=1)] = 0.1) -> None:
        self.validation_share = validation_share
        self._clock: Clock | None = None
        self._started = self._ended = self._last_time = 0.0
        self._last_wait = self._last_other = 0.0
        self._pixels = 0
        self._last_step = -1
        self._warned = False

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start timing; the time before the first step is not counted."""
        profiler = trainer.profiler  # type: ignore[attr-defined]
        self._clock = profiler if isinstance(profiler, Clock) else None
        self._started = self._ended = self._last_time = time.monotonic()
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Sample, batch_idx: int
    ) -> None:
        """Count the pixels, and log every few steps."""
        self._pixels += batch["hq"].shape[0] * batch["hq"].shape[-2] * batch["hq"].shape[-1]
        self._ended = time.monotonic()
        step = trainer.global_step
        if step == self._last_step or step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        self._last_step = step
        wait, other = self._spent()
        seconds = self._ended - self._last_time - (other - self._last_other)
        if seconds > 0:
            pixels = self._pixels * trainer.world_size
            pl_module.log("train/megapixels_per_second", pixels / seconds / 1e6, rank_zero_only=True)
            if self._clock is not None:
                pl_module.log("train/data_wait_share", (wait - self._last_wait) / seconds, rank_zero_only=True)
        pl_module.log("train/memory_gib", memory_gib(trainer.strategy.root_device), rank_zero_only=True)
        self._last_time, self._last_wait, self._last_other, self._pixels = self._ended, wait, other, 0

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start timing validation."""
        trainer.profiler.start(VALIDATION)  # type: ignore[attr-defined]

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop timing validation, and warn as soon as it takes too much time rather than at the end of the run."""
        trainer.profiler.stop(VALIDATION)  # type: ignore[attr-defined]
        self._ended = time.monotonic()
        if not self._warned and trainer.is_global_zero and (warning := self._warning()):
            self._warned = True
            _log.warning(warning)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Include the last checkpoint in the total time."""
        self._ended = time.monotonic()

    def closing_lines(self) -> list[str]:
        """Return the shares of the time from the first step to the last validation, with a warning if validation took too much."""
        total, seconds = self._seconds()
        if not seconds:
            return []
        line = f"time {total:.0f} s: " + ", ".join(f"{name} {100 * value / total:.1f} %" for name, value in seconds.items())
        return [line, warning] if (warning := self._warning()) else [line]

    def closing_record(self) -> dict[str, Any]:
        """Return the shares of `closing_lines` for results.json: the time since this start of the run, in seconds, and each share of it."""
        total, seconds = self._seconds()
        if not seconds:
            return {}
        shares = {name: round(value / total, 4) for name, value in seconds.items()}
        return {"time": {"seconds": round(total, 1), "shares": shares}}

    def _seconds(self) -> tuple[float, dict[str, float]]:
        """Return the time from the first step to the last validation, and the part of each activity; no parts if nothing was timed."""
        total = self._ended - self._started
        if self._clock is None or total <= 0:
            return total, {}
        return total, {"training": max(0.0, total - sum(self._clock.seconds.values())), **self._clock.seconds}

    def _warning(self) -> str:
        total = self._ended - self._started
        if self._clock is None or total < 60:
            return ""
        share = self._clock.seconds[VALIDATION] / total
        if share <= self.validation_share:
            return ""
        return (
            f"validation takes {100 * share:.0f} % of the time: increase trainer.val_check_interval, "
            f"or validate on fewer images by data.val_images=NUMBER or on another set by data.val=NAME"
        )

    def _spent(self) -> tuple[float, float]:
        """Return the seconds spent so far on data wait, and on everything except data wait and training."""
        if self._clock is None:
            return 0.0, 0.0
        wait = self._clock.seconds[DATA_WAIT]
        return wait, sum(self._clock.seconds.values()) - wait


def memory_gib(device: torch.device) -> float:
    """Return the peak memory in GiB: of tensors on a GPU, or of this process on the CPU (without workers; NaN if unknown)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if resource is None:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes on macOS, KiB on Linux
