"""How long commands take to start: a new process each time."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from irformer.core.folders import PACKAGE
from irformer.errors import UserError
from irformer.reporting.tables import Cell, Number, ResultTable
from irformer.speed.measure import Timing
from irformer.speed.verdicts import Finding, Target, verdicts

_TIMEOUT = 300
_TRAIN = ("-m", "irformer")


@dataclass(frozen=True)
class StartUp:
    """The start of a command.

    Args:
        timing: seconds of each attempt.
        finding: median and target.
    """

    timing: Timing
    finding: Finding


def time_startup(rounds: int, first_step_rounds: int, folder: Path, model: str = "swinir_light") -> list[StartUp]:
    """Time the start of Python with irformer, of two commands that do nothing, and of training up to its first step.

    Args:
        rounds: number of attempts.
        first_step_rounds: number of attempts of training.
        folder: folder for runs.
        model: the model that is trained.

    Raises:
        UserError: a command failed in another way than it should.
    """
    words = [f"model={model}", "batch_size=4", "trainer=cpu", "data=sample", f"paths.runs={folder}"]
    starts: list[tuple[str, float, int, Callable[[int], None]]] = [
        ("import irformer", 0.1, rounds, lambda _n: _finish(["-c", "import irformer"], 0)),
        ("train.py --help", 3.0, rounds, lambda _n: _finish([*_TRAIN, "--help"], 0)),
        ("error for a misspelled key", 3.0, rounds, lambda _n: _finish([*_TRAIN, "modle=swinir"], 1)),
        (f"first training step of {model}, batch 4", 10.0, first_step_rounds, lambda n: _reach_first_step(folder / f"start{n}", words)),
    ]
    found = []
    for name, bound, attempts, start in starts:
        seconds = []
        for number in range(-1, attempts):  # the first attempt reads the files from the disk
            started = time.perf_counter()
            start(number)
            if number >= 0:
                seconds.append(time.perf_counter() - started)
        timing = Timing(name, tuple(seconds))
        found.append(StartUp(timing, Finding("", name, timing.spread, Target(bound, at_least=False), "s")))
    return found


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, *arguments]


def _environment() -> dict[str, str]:
    """Return the environment in which Python finds this irformer, wherever it was imported from."""
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}


def _finish(arguments: Sequence[str], status: int) -> None:
    done = subprocess.run(_command(arguments), env=_environment(), capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode != status:
        raise UserError(f"python {' '.join(arguments)} ended with status {done.returncode}, expected {status}: {_last_line(done.stderr)}")


def _reach_first_step(folder: Path, words: Sequence[str]) -> None:
    """Train until metrics.csv has the loss of the first step, and stop the run."""
    arguments = [*_TRAIN, *words, f"name={folder.name}", "trainer.log_every_n_steps=1"]
    metrics = folder / "metrics.csv"
    with subprocess.Popen(_command(arguments), env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not (metrics.is_file() and "train/loss" in metrics.read_text(encoding="utf-8")):
                if process.poll() is not None:
                    assert process.stderr is not None
                    raise UserError(f"python {' '.join(arguments)} ended before its first step: {_last_line(process.stderr.read())}")
                time.sleep(0.01)
        finally:
            process.kill()  # its run is a temporary folder


def _last_line(text: str) -> str:
    return next(iter(reversed(text.strip().splitlines())), "")


def startup_table(starts: Sequence[StartUp]) -> ResultTable:
    """Return the table of all starts."""
    rows: list[list[Cell]] = []
    for start in starts:
        spread, target = start.timing.spread, start.finding.target
        assert target is not None
        rows.append([start.timing.name, Number(spread.median, 2), f"{spread.low:.2f} to {spread.high:.2f}", target.text()])
    return ResultTable("Start-up", ["command", "s", "quartiles", "target"], rows)


def startup_lines(starts: Sequence[StartUp]) -> list[str]:
    """Return the verdicts."""
    return verdicts(start.finding for start in starts)
