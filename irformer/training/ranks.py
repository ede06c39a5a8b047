"""Report a killed process of a run in one line that names it, instead of the tracebacks of all processes that waited for it."""

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

_POLL_SECONDS = 0.05
_REPORT_TIMEOUT = 3.0  # seconds from a lost connection until the exit of the process must have been noticed


class RankWatch:
    """Context manager that ends a run when one of the processes started by Lightning's launcher fails.

    The main process may be blocked in a collective that never returns, so a thread reports the failure and exits the process. Lightning's
    own observer is disabled, because it kills the main process without a message.

    Args:
        launcher: the launcher of Lightning's strategy, or None.
        report: prints why the run ends; maps a description (`process 1 was killed by SIGKILL`) to the exit status.
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
        """Stop watching; from here on, processes may exit."""
        self._done.set()
        self._thread.join()

    def wait_for_report(self) -> None:
        """After a lost connection, wait for the thread to notice the failed process; it then exits this process."""
        if started_as_scripts(self.launcher):
            self._thread.join(_REPORT_TIMEOUT)

    def _watch(self) -> None:
        while not self._done.wait(_POLL_SECONDS):
            processes = started_as_scripts(self.launcher)
            if processes:
                disarm_process_observer()
            for local_rank, process in enumerate(processes, start=1):
                status = process.poll()
                if status and not self._done.is_set():
                    self._end(local_rank, status)

    def _end(self, local_rank: int, status: int) -> None:
        rank = int(os.environ.get("NODE_RANK", 0)) * (len(started_as_scripts(self.launcher)) + 1) + local_rank
        code = self.report(f"process {rank} {describe_exit(status)}")
        self.launcher.kill(KILL)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def describe_exit(status: int) -> str:
    """Describe how a process ended, from its exit status, which is negative for a signal."""
    if status >= 0:
        return f"exited with status {status}; its output is above"
    number = -status
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"was killed by {name}" + (" (the kernel does this when memory runs out)" if name == "SIGKILL" else "")


def lost_process(error: BaseException, launcher: Any) -> str | None:
    """Describe the process whose loss caused an error in a multi-process run; None for other errors.

    Args:
        error: the error that ended the run in this process.
        launcher: the launcher of Lightning's strategy, or None.
    """
    if isinstance(error, ProcessExitedException | ProcessRaisedException):  # ddp_spawn, in the parent process
        for rank, process in enumerate(started_by_spawn(launcher)):
            if process.exitcode not in (None, 0, 1, -signal.SIGTERM):  # torch terminates the others by SIGTERM
                return f"process {rank} {describe_exit(process.exitcode)}"
        return None
    lost = isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    return "the connection to another process was lost" if lost else None
