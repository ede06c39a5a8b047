"""Handle SIGTERM, Ctrl-C and SLURM's preemption signal: a run saves a checkpoint and exits at the next step it can resume from."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Protocol

# Windows has neither SIGUSR1 nor SIGKILL; there, SIGTERM kills a process as SIGKILL does elsewhere.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
KILL: signal.Signals = getattr(signal, "SIGKILL", signal.SIGTERM)


class Launcher(Protocol):
    """The part of Lightning's launchers that is used here."""

    def kill(self, signum: Any) -> None:
        """Send a signal to the processes that the launcher started."""
        ...


class Stopped(SystemExit):
    """Raised when a signal ends the run; the exit status of the main process is the usual 128 + the signal's number.

    Other processes exit with 0: Lightning kills a process whose children fail, and the main one must still print how to resume.
    """

    def __init__(self, signum: int, rank: int = 0) -> None:
        super().__init__(128 + signum if rank == 0 else 0)
        self.signum = signum


class StopSignals:
    """Handles stop signals: immediately if no progress would be lost (before training, in validation, in the benchmark), else after a step.

    As a context manager, it installs its signal handlers and restores the previous ones. It does nothing outside the main thread.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.launcher: Launcher | None = None  # forwards the signal to the other processes
        self.rank = 0
        self._held = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {signum: signal.getsignal(signum) for signum in SIGNALS}
            self.install()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def install(self) -> None:
        """Install the signal handlers, again if Lightning has replaced them."""
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                signal.signal(signum, self._handle)

    def hold(self) -> None:
        """Defer signals: from here on they are only recorded in `received`."""
        self._held = True

    def release(self) -> None:
        """Handle signals immediately from here on, including one already received."""
        self._held = False
        if self.received is not None:
            self.stop()

    def stop(self) -> None:
        """End the run.

        Raises:
            Stopped: always.
        """
        self._held = True  # another signal must not interrupt the shutdown
        raise Stopped(self.received or signal.SIGTERM, self.rank)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if self.launcher is not None and self.received is None:
            self.launcher.kill(signum)
        self.received = signum
        if not self._held:
            self.stop()
