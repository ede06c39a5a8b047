"""Processes of a run that are killed: which one, and by what, in one line instead of the traceback of everyone who waited for it."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from irformer.training.lightning_internals import disarm_process_observer, started_as_scripts, started_by_spawn
from irformer.training.stopping import KILL

# Seconds between two looks at the processes, and those that a lost connection waits for the process to be missed.
_LOOK_EVERY = 0.05
_UNTIL_MISSED = 3.0


class RankWatch:
    """As a context, ends a run when one of the processes that Lightning's launcher has started fails.

    The process that waits for the lost one may be within a collective that never returns, so that a thread reports and ends it.
    Lightning's own observer is disarmed, since it kills the first process without a message.

    Args:
        launcher: of Lightning's strategy, or None.
        report: prints why the run ends; takes what happened (`process 1 was killed by SIGKILL`) and gives the exit status.
    """

    def __init__(self, launcher: Any, report: Callable[[str], int]) -> None:
        self.launcher = launcher
        self.report = report
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rank-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop watching: from here processes may end as they like."""
        self._done.set()
        self._thread.join()

    def wait_for_report(self) -> None:
        """Give the thread time to miss the process to which a connection was lost; it then ends this process."""
        if started_as_scripts(self.launcher):
            self._thread.join(_UNTIL_MISSED)

    def _watch(self) -> None:
        while not self._done.wait(_LOOK_EVERY):
            processes = started_as_scripts(self.launcher)
            if processes:
                disarm_process_observer()
            for local_rank, process in enumerate(processes, start=1):
                status = process.poll()
                if status and not self._done.is_set():
                    self._end(local_rank, status)

    def _end(self, local_rank: int, status: int) -> None:
        rank = int(os.environ.get("NODE_RANK", 0)) * (len(started_as_scripts(self.launcher)) + 1) + local_rank
        code = self.report(f"process {rank} {ended(status)}")
        self.launcher.kill(KILL)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def ended(status: int) -> str:
    """How a process has ended, in words, by its status: negative for a signal."""
    if status >= 0:
        return f"ended with status {status}; what it said stands above"
    number = -status
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"was killed by {name}" + (" (as by the kernel when memory runs out)" if name == "SIGKILL" else "")


def lost_process(error: BaseException, launcher: Any) -> str | None:
    """What a failed run of several processes says of the one that it has lost; None for errors of any other kind.

    Args:
        error: that has ended the run in this process.
        launcher: of Lightning's strategy, or None.
    """
    if isinstance(error, ProcessExitedException | ProcessRaisedException):  # ddp_spawn, as its parent sees it
        for rank, process in enumerate(started_by_spawn(launcher)):
            if process.exitcode not in (None, 0, 1, -signal.SIGTERM):  # torch ends the others by SIGTERM
                return f"process {rank} {ended(process.exitcode)}"
        return None
    lost = isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    return "the connection to another process was lost" if lost else None
