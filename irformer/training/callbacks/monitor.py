"""Where a run's time goes, and how much it gets done: data wait, validation, probe, checkpoints, megapixels a second, memory."""

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
    """Seconds that a run spends in activities other than training steps, each second in one of them.

    Lightning tells its profiler when it starts and stops waiting for a batch and saving a checkpoint; our callbacks tell it of validation
    and probe. An activity within another (a checkpoint saved in a validation) is taken out of the outer one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = dict.fromkeys((DATA_WAIT, VALIDATION, PROBE, CHECKPOINTS), 0.0)
        self._open: list[str] = []
        self._since = 0.0

    def start(self, action_name: str) -> None:
        """Begin what Lightning or a callback calls `action_name`, if it is one of the activities."""
        if action_name in _ACTIVITIES:
            self._settle()
            self._open.append(_ACTIVITIES[action_name])

    def stop(self, action_name: str) -> None:
        """End it."""
        if self._open and _ACTIVITIES.get(action_name) == self._open[-1]:
            self._settle()
            self._open.pop()

    def _settle(self) -> None:
        """Charge the time since the last change to the innermost open activity."""
        now = time.monotonic()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


class Monitor(lightning.Callback):
    """Logs how much a run gets done, and says where its time went.

    Logged every `trainer.log_every_n_steps` steps, over the time since the last time:

    - train/megapixels_per_second: clean (HQ) pixels of all processes' patches per second of training and waiting for data. HQ pixels, since
      they are what a recipe compares at different scales: an x4 network makes as many of them from a sixteenth of the input.
    - train/data_wait_share: of the time of training and waiting for data, the share in which the process waited for its next batch. Workers
      that read ahead take nothing from it: only what the training loop itself waits counts.
    - train/memory_gib: GiB, the most that tensors took on the GPU since the start; on the CPU the most memory that the process held.

    Lightning's ThroughputMonitor does not fit: it takes the batch to be of the same size in all iterations, where progressive recipes
    change it; checkpoints and probes count in its time; and it does not know how long the data was waited for.

    Args:
        validation_share: a validation share of the run's time above this gets a warning, once the run is a minute old.
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
        """Start the clock: what a run does before its first step is not counted."""
        profiler = trainer.profiler  # type: ignore[attr-defined]
        self._clock = profiler if isinstance(profiler, Clock) else None
        self._started = self._ended = self._last_time = time.monotonic()
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Sample, batch_idx: int
    ) -> None:
        """Count the pixels, and log when it is time."""
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
        """Tell the clock."""
        trainer.profiler.start(VALIDATION)  # type: ignore[attr-defined]

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Tell the clock; warn as soon as validation is seen to take too much, not days later at the end."""
        trainer.profiler.stop(VALIDATION)  # type: ignore[attr-defined]
        self._ended = time.monotonic()
        if not self._warned and trainer.is_global_zero and (warning := self._warning()):
            self._warned = True
            _log.warning(warning)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The last checkpoint counts too."""
        self._ended = time.monotonic()

    def closing_lines(self) -> list[str]:
        """The shares of the time from the first step to the last validation, and a warning where validation took too much of it."""
        total = self._ended - self._started
        if self._clock is None or total <= 0:
            return []
        seconds = {"training": max(0.0, total - sum(self._clock.seconds.values())), **self._clock.seconds}
        line = f"time {total:.0f} s: " + ", ".join(f"{name} {100 * value / total:.1f} %" for name, value in seconds.items())
        return [line, warning] if (warning := self._warning()) else [line]

    def _warning(self) -> str:
        total = self._ended - self._started
        if self._clock is None or total < 60:
            return ""
        share = self._clock.seconds[VALIDATION] / total
        if share <= self.validation_share:
            return ""
        return (
            f"validation takes {100 * share:.0f} % of the time: a larger trainer.val_check_interval makes it rarer, "
            f"data.val=NAME or data.val=FOLDER takes a smaller set"
        )

    def _spent(self) -> tuple[float, float]:
        """Seconds so far of waiting for data, and of everything that is neither that nor training."""
        if self._clock is None:
            return 0.0, 0.0
        wait = self._clock.seconds[DATA_WAIT]
        return wait, sum(self._clock.seconds.values()) - wait


def memory_gib(device: torch.device) -> float:
    """The most memory used so far, in GiB: by tensors on a GPU, by this process on the CPU (without workers; NaN where unknown)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if resource is None:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes on macOS, KiB on Linux
