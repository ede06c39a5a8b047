"""A run from its first step to its report: training, the benchmark of its best weights, and the files that it leaves."""

import errno
import json
import logging
import os
import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from rich.console import Console
from rich.markup import escape
from torch.multiprocessing.spawn import ProcessExitedException
from tqdm import tqdm

from irformer.benchmark import SetResult, evaluate, results_record
from irformer.checkpoints import BEST, LAST, load_checkpoint
from irformer.data.module import RestorationData
from irformer.data.test_sets import TestSet
from irformer.dynamics.figures import figure1, read_dynamics
from irformer.errors import UserError, without_traceback
from irformer.files import cut_back, drop_asides, locked, write_atomically
from irformer.inference import NetworkRestorer, Restorer, baseline
from irformer.report import benchmark_table, crop_rows, write_page
from irformer.tasks import Task
from irformer.training.debug import Overfit
from irformer.training.loggers import close_loggers
from irformer.training.module import RestorationModule
from irformer.training.monitor import Monitor
from irformer.training.resuming import LOGS, RESULTS, Resume, find_resume
from irformer.training.stopping import Stopped, StopSignals
from irformer.trust import Trust

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """Everything that a run needs, built and checked.

    Args:
        folder: where its files go.
        title: what is trained, in a few words.
        config: the resolved configuration, plain YAML text.
        facts: what the summary says, name and value.
        task: the task.
        module: network, loss and optimizer.
        data: training and validation data.
        trainer: Lightning's trainer, its root folder is `folder`.
        test_sets: measured at the end.
        resume: the checkpoint that training goes on from, or None.
        stop: the signals that end the run.
        trust: which classes the run's own weights may name.
    """

    folder: Path
    title: str
    config: str
    facts: dict[str, str]
    task: Task
    module: RestorationModule
    data: RestorationData
    trainer: lightning.Trainer
    test_sets: list[TestSet]
    resume: Resume | None
    stop: StopSignals
    trust: Trust

    def execute(self, console: Console) -> dict[str, Any]:
        """Train, then measure the best weights and write results.json and report.html.

        Args:
            console: where the summary and the table are printed.

        Returns:
            What results.json holds; nothing on other processes than the first.

        Raises:
            Stopped: a signal has ended the run; everything is saved, and a line says how to go on.
            UserError: another process trains in this folder, or there is no room on the disk.
        """
        main = self.trainer.is_global_zero
        launcher = self.trainer.strategy.launcher
        self.stop.launcher, self.stop.rank = launcher, self.trainer.global_rank
        with locked(self.folder) if main else nullcontext(), self.stop:
            try:
                self._open_folder()
                self._announce(console)
                self._train(console)
                close_loggers(self.trainer.loggers)
                if not main:
                    return {}
                record = self._benchmark(console)
                self._tell_closing_lines(console)
                return record
            except BaseException as error:
                if main and launcher is not None:
                    launcher.kill(signal.SIGKILL)  # those that wait for this process would wait for ever
                if isinstance(error, Stopped):
                    self._tell_how_to_resume(console, f"stopped by {signal.Signals(error.signum).name}")
                elif isinstance(error, UserError):  # a file that cannot be read any more
                    self._tell_how_to_resume(console, "stopped by an error")
                    raise without_traceback(error) from None
                elif isinstance(error, OSError) and error.errno in _NO_ROOM:
                    folder = os.path.relpath(self.folder)
                    raise UserError(
                        f"{error.filename or folder}: {error.strerror}; make room, then python train.py resume={folder} goes on from the "
                        "last checkpoint"
                    ) from error
                raise

    def _open_folder(self) -> None:
        """Leave in the logs what they held at the checkpoint, and nothing of a process that was killed beside its files."""
        if not self.trainer.is_global_zero:
            return
        for folder in (self.folder, self.folder / LAST.parent):
            drop_asides(folder)
        cut_back(self.folder, LOGS, self.resume.sizes if self.resume else {})

    def _train(self, console: Console) -> None:
        """Train from where the run stands to its last step; where that is done already, do the validation that may be due."""
        resume = self.resume
        if resume is not None and resume.step >= self.trainer.max_steps:
            if resume.validation_due:
                # Lightning restores its counters for training alone, and the logs are numbered by them.
                self.trainer.fit_loop.load_state_dict(torch.load(resume.file, weights_only=True, mmap=True)["loops"]["fit_loop"])
                self.trainer.validate(self.module, self.data, ckpt_path=resume.file, verbose=False)
            return
        if isinstance(self.trainer.strategy.launcher, _MultiProcessingLauncher):
            self.stop.hold()  # the processes that it starts answer, and end it by their own end
        try:
            self.trainer.fit(self.module, self.data, ckpt_path=resume.file if resume else None)
        except ProcessExitedException:
            if self.stop.received is None:
                raise
        self.stop.release()

    def _announce(self, console: Console) -> None:
        if not self.trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "config.yaml", lambda aside: aside.write_text(self.config, encoding="utf-8"))
        width = max(len(name) for name in self.facts)
        for name, value in self.facts.items():
            console.print(f"[bold]{name:{width}}[/bold]  {escape(value)}", highlight=False, soft_wrap=True)

    def _tell_how_to_resume(self, console: Console, what: str) -> None:
        if not self.trainer.is_global_zero:
            return
        resume = find_resume(self.folder)
        place = f"saved at step {resume.step} of {self.trainer.max_steps}" if resume else "before its first checkpoint"
        line = f"{what}, {place}; to go on: python train.py resume={os.path.relpath(self.folder)}"
        console.print(line, highlight=False, soft_wrap=True)

    def _tell_closing_lines(self, console: Console) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Monitor | Overfit):
                for line in callback.closing_lines():
                    console.print(line, highlight=False, soft_wrap=True)

    def _benchmark(self, console: Console) -> dict[str, Any]:
        best = load_checkpoint(self.folder / BEST, trust=self.trust)
        device = self.trainer.strategy.root_device
        restorer = NetworkRestorer(best.network.to(device), self.task.protocol.padding, device)
        name, untrained = baseline(self.task)
        restorers: dict[str, Restorer] = {name: untrained, f"{self.title}, step {best.step}": restorer}
        results = {name: measure_test_sets(restorer, self.test_sets) for name, restorer in restorers.items()}
        table = benchmark_table(self.task, results)
        table.show(console)

        record = results_record(str(BEST), self.task, restorer.padding, list(results.values())[-1])
        record["step"] = best.step
        record["trained_steps"] = self.trainer.max_steps
        write_page(
            self.folder / "report.html",
            title=self.title,
            facts=self.facts,
            tables=[table],
            figure=self._figure(),
            crops=crop_rows(self.test_sets[0], restorers),
        )
        # The last file: where it is, nothing is left to do.
        write_atomically(self.folder / RESULTS, lambda aside: aside.write_text(json.dumps(record, indent=1) + "\n"))
        for file in (RESULTS, "report.html", BEST):
            console.print(f"wrote {os.path.relpath(self.folder / file)}")
        return record

    def _figure(self) -> Path | None:
        dynamics = self.folder / "dynamics.csv"
        if not dynamics.is_file():
            return None
        figure = self.folder / "dynamics.png"
        figure1({self.title: read_dynamics(dynamics)}, feature_channels(self.module.network), figure)
        return figure


def feature_channels(network: torch.nn.Module) -> int:
    """C of a network's features: the outputs of its first convolution."""
    return next(module.out_channels for module in network.modules() if isinstance(module, torch.nn.Conv2d))


def measure_test_sets(restorer: Restorer, test_sets: list[TestSet]) -> list[SetResult]:
    """Evaluate a restorer on test sets: a progress bar for each on a terminal, a line when it is done in a log file."""
    results = []
    for test_set in test_sets:
        started = time.monotonic()
        with tqdm(total=len(test_set), desc=test_set.name, unit="image", leave=False, disable=None) as bar:
            results.append(evaluate(restorer, test_set, lambda _name, bar=bar: bar.update()))  # type: ignore[misc]
        if bar.disable:
            _log.info("measured %s: %d images in %.0f s", test_set.name, len(test_set), time.monotonic() - started)
    return results
