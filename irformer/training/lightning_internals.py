"""Everything that irformer uses of Lightning beyond its documented interface.

Exact resume needs the counters of Lightning's loops, and a clear report of a killed process needs the processes that its launcher started.
Both may change with any release, so no other module touches them, and tests/training/test_lightning_internals.py names what changed.
"""

import copy
import threading
from multiprocessing.process import BaseProcess
from subprocess import Popen
from typing import Any

import lightning
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

# The name under which the training loop's wait for its next batch reaches a profiler.
DATA_WAIT_ACTION = "[_TrainingEpochLoop].train_dataloader_next"

_OBSERVER = "child-process-observer"


def loop_counters(trainer: lightning.Trainer) -> dict[str, Any]:
    """A copy of the counters of the training loop, from which Lightning continues after the batch that just ended."""
    return copy.deepcopy(trainer.fit_loop.state_dict())


def put_loop_counters(checkpoint: dict[str, Any], counters: dict[str, Any] | None) -> None:
    """Replace the counters in a checkpoint that Lightning is about to write."""
    checkpoint["loops"]["fit_loop"] = counters


def restore_loop_counters(trainer: lightning.Trainer, checkpoint: dict[str, Any]) -> None:
    """Set the counters to those of a checkpoint, for a validation alone: Lightning itself restores them only when it trains."""
    trainer.fit_loop.load_state_dict(checkpoint["loops"]["fit_loop"])


def validate_within_training(trainer: lightning.Trainer) -> None:
    """Run a validation as the training loop does after a batch."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    trainer.validating = True
    loop.run()
    trainer.training = True


def started_as_scripts(launcher: Any) -> list[Popen]:
    """The processes that a launcher started by running the command line again, without this one; empty for other launchers and None."""
    return [process for process in getattr(launcher, "procs", None) or [] if isinstance(process, Popen)]


def started_by_spawn(launcher: Any) -> list[BaseProcess]:
    """The processes that a launcher started by `multiprocessing`; empty for other launchers and None."""
    return [process for process in getattr(launcher, "procs", None) or [] if isinstance(process, BaseProcess)]


def spawns(launcher: Any) -> bool:
    """Whether a launcher starts processes by `multiprocessing` (ddp_spawn)."""
    return isinstance(launcher, _MultiProcessingLauncher)


def disarm_process_observer() -> None:
    """Give Lightning's observer nothing to observe. Otherwise it kills the first process without a message when another one fails."""
    for thread in threading.enumerate():
        if thread.name == _OBSERVER:
            thread._child_processes = []  # type: ignore[attr-defined]
