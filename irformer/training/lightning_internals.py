"""Every use of Lightning's internals.

Exact resume needs the counters of Lightning's loops, and reporting a killed process needs the processes that its launcher started. Both
may change in any release, so no other module uses them, and tests/training/test_lightning_internals.py shows what changed.
"""

import threading
from multiprocessing.process import BaseProcess
from subprocess import Popen
from typing import Any

import lightning
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

# The name under which Lightning profiles the training loop's wait for the next batch.
DATA_WAIT_ACTION = "[_TrainingEpochLoop].train_dataloader_next"

_OBSERVER = "child-process-observer"


def loop_counters(trainer: lightning.Trainer) -> dict[str, Any]:
    """Copy the counters of the training loop, with which Lightning resumes after the batch that just ended."""
    return trainer.fit_loop.state_dict()  # built anew from dataclasses


def put_loop_counters(checkpoint: dict[str, Any], counters: dict[str, Any] | None) -> None:
    """Replace the loop counters in a checkpoint that Lightning is about to write."""
    checkpoint["loops"]["fit_loop"] = counters


def restore_loop_counters(trainer: lightning.Trainer, checkpoint: dict[str, Any]) -> None:
    """Restore the loop counters from a checkpoint before a standalone validation; Lightning restores them only for training."""
    trainer.fit_loop.load_state_dict(checkpoint["loops"]["fit_loop"])


def validate_within_training(trainer: lightning.Trainer) -> None:
    """Run a validation the way the training loop does after a batch."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    trainer.validating = True
    loop.run()
    trainer.training = True


def is_logged(trainer: lightning.Trainer) -> bool:
    """Return whether the values of the current training step are logged: every few steps, and at the last one.

    In other steps, values are not passed to `log`, which costs a millisecond each. Lightning also logs a step at whose end a callback stops
    the run, so the values of an earlier step are marked as logged here: it would log them again, under the number of this step.
    """
    logged = trainer._logger_connector.should_update_logs or trainer.global_step + 1 >= trainer.max_steps
    if not logged:
        for value in trainer.fit_loop.epoch_loop._results.values():
            if value.meta.fx in ("training_step", "on_before_optimizer_step"):
                value.has_reset = True
    return logged


def started_as_scripts(launcher: Any) -> list[Popen]:
    """Return the processes that a launcher started by re-running the command line; empty for other launchers and None."""
    return [process for process in getattr(launcher, "procs", None) or [] if isinstance(process, Popen)]


def started_by_spawn(launcher: Any) -> list[BaseProcess]:
    """Return the processes that a launcher started with `multiprocessing`; empty for other launchers and None."""
    return [process for process in getattr(launcher, "procs", None) or [] if isinstance(process, BaseProcess)]


def spawns(launcher: Any) -> bool:
    """Return whether a launcher starts processes with `multiprocessing` (ddp_spawn)."""
    return isinstance(launcher, _MultiProcessingLauncher)


def disarm_process_observer() -> None:
    """Disable Lightning's process observer, which kills the main process without a message when another process fails."""
    for thread in threading.enumerate():
        if thread.name == _OBSERVER:
            thread._child_processes = []  # type: ignore[attr-defined]
