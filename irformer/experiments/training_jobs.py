"""Train several runs at once, each in a process of its own; runs that are complete are skipped, and interrupted ones are resumed."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from irformer.core.files import file_lock
from irformer.core.libraries import silence_libraries
from irformer.errors import UserError
from irformer.experiments.analyses import analyze
from irformer.experiments.planning import PlannedRun
from irformer.runs.sweep import finish_run
from irformer.training.stopping import Stopped

# Processes are forked from one that has imported everything and has started no threads, which saves seconds per run. Windows cannot fork.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_PRELOADED = ["irformer.experiments.training_jobs", "lightning.pytorch"]

Finished = Callable[[PlannedRun], object]


def train_runs(
    runs: Sequence[PlannedRun], jobs: int, console: Console, finished: Finished, analyses: Callable[[PlannedRun], Sequence[str]]
) -> None:
    """Train runs, several at once.

    A signal stops all of them after they have saved a checkpoint. If this process is killed, the others notice and stop in the same way.

    Args:
        runs: runs in their order.
        jobs: number of processes; on the CPU, each uses one thread.
        console: where a line is printed for each run that starts or ends.
        finished: called for each run that is complete.
        analyses: returns the names of the analyses that are computed from a run's weights when it is complete.

    Raises:
        Stopped: SIGINT or SIGTERM was received.
        UserError: some runs failed; the others are complete.
    """
    context: Any = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(_PRELOADED)
    waiting = list(enumerate(runs, start=1))
    running: dict[BaseProcess, tuple[PlannedRun, str, Connection, float]] = {}
    failures: list[str] = []
    with _signals_forwarded(running) as received:
        while (waiting and not received) or running:
            while waiting and not received and len(running) < jobs:
                number, run = waiting.pop(0)
                place = f"{number} of {len(runs)}"
                console.print(Text(f"{place}: {run.name}"), soft_wrap=True)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_train, args=(run, analyses(run), theirs))
                process.start()
                theirs.close()
                running[process] = run, place, ours, time.monotonic()
            for process in [process for process in list(running) if process.sentinel in wait([p.sentinel for p in running], timeout=1)]:
                process.join()
                run, place, ours, started = running.pop(process)
                message = _received(ours)
                if process.exitcode == 0 and message is None:
                    finished(run)
                    console.print(Text(f"{place}: finished in {time.monotonic() - started:.0f} s: {run.name}"), soft_wrap=True)
                elif not received:
                    failures.append(f"{run.name}: {message or f'its process ended with status {process.exitcode}'}")
                    console.print(Text(f"{place}: failed: {failures[-1]}", "bold"), soft_wrap=True)
    if received:
        console.print(Text(f"stopped by {signal.Signals(received[0]).name}; the same command resumes"), soft_wrap=True)
        raise Stopped(received[0])
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise UserError(f"{failures[0]}{more}; the other runs are complete, and the same command tries again")


@contextmanager
def _signals_forwarded(running: dict[BaseProcess, Any]) -> Iterator[list[int]]:
    """Yield a list that receives the number of a stop signal, which is passed on to the running processes as SIGTERM."""
    received: list[int] = []

    def forward(signum: int, _frame: FrameType | None) -> None:
        received.append(signum)
        for process in list(running):
            with contextlib.suppress(OSError, ValueError):  # it has just ended
                process.terminate()

    before = {signum: signal.signal(signum, forward) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _received(connection: Connection) -> str | None:
    """Return the message of a process that failed, or None."""
    with connection:
        try:
            return str(connection.recv()) if connection.poll() else None
        except (EOFError, OSError):
            return None


def _train(run: PlannedRun, analyses: Sequence[str], connection: Connection) -> None:
    """Train one run in this process, and analyze it. What it prints goes to the run's log.txt."""
    _stop_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the main process passes it on
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 (not a path of the file system)
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    silence_libraries()
    if run.config.trainer.accelerator == "cpu":
        torch.set_num_threads(1)
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(run.folder / ".lock"):  # waits for another process that trains this run
            pass
        finish_run(run.config, run.folder, Console(quiet=True), "move that folder away", list(run.overrides), quiet=True)
        if analyses:
            analyze(run.folder, run.config, analyses)
    except UserError as error:
        connection.send(str(error))
    except Exception:
        connection.send(traceback.format_exc())


def _stop_with_parent() -> None:
    """Stop this process as by SIGTERM when the process that started it ends, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
