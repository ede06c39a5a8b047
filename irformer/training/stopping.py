"""SIGTERM, Ctrl-C and SLURM's warning before it preempts: a run saves and ends as soon as it can be resumed from there."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Protocol

# Windows has no SIGUSR1 and no SIGKILL; there, SIGTERM ends a process as SIGKILL does elsewhere.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
KILL: signal.Signals = getattr(signal, "SIGKILL", signal.SIGTERM)


class Launcher(Protocol):
    """Lightning's launchers, as far as they concern us."""

    def kill(self, signum: Any) -> None:
        """Send a signal to the processes that were started."""
        ...


class Stopped(SystemExit):
    """A signal has ended the run; the status is the usual 128 + its number on the first process.

    The others end with 0: Lightning kills a process whose children fail, and the first one still has to say how to go on.
    """

    def __init__(self, signum: int, rank: int = 0) -> None:
        super().__init__(128 + signum if rank == 0 else 0)
        self.signum = signum


class StopSignals:
    """Answers signals: at once where nothing would be lost (before training, in validation, in the benchmark), or when a step is done.

    As a context it takes the signals over and gives them back. In threads other than the first it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.launcher: Launcher | None = None  # of processes that are told too
        self.rank = 0
        self._held = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {signum: signal.getsignal(signum) for signum in SIGNALS}
            self.take()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def take(self) -> None:
        """Take the signals over, again where Lightning has put itself before us."""
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                signal.signal(signum, self._answer)

    def hold(self) -> None:
        """From here a signal is only remembered, in `received`."""
        self._held = True

    def release(self) -> None:
        """From here a signal ends the run at once, one that has come already too."""
        self._held = False
        if self.received is not None:
            self.stop()

    def stop(self) -> None:
        """End the run.

        Raises:
            Stopped: always.
        """
        self._held = True  # the next one shall not end the ending
        raise Stopped(self.received or signal.SIGTERM, self.rank)

    def _answer(self, signum: int, _frame: FrameType | None) -> None:
        if self.launcher is not None and self.received is None:
            self.launcher.kill(signum)
        self.received = signum
        if not self._held:
            self.stop()
