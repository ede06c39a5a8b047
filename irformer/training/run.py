"""Executes a run: training, the benchmark of the best weights, and the files that it writes."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import lightning
import torch
from rich.console import Console
from rich.text import Text
from torch.multiprocessing.spawn import ProcessExitedException

from irformer.config.saved import CONFIG
from irformer.core.faults import machine_fault
from irformer.core.files import locked, remove_temporary_files, require_writable, truncate_files, write_atomically
from irformer.core.trust import Trust
from irformer.data.test_sets import TestSet
from irformer.dynamics.figures import figure1, read_dynamics
from irformer.errors import UserError, without_traceback
from irformer.evaluation.evaluate import evaluate_sets, results_record
from irformer.evaluation.restorers import NetworkRestorer, Restorer, baseline
from irformer.evaluation.results import write_results
from irformer.reporting.curves import run_charts
from irformer.reporting.gallery import gallery, restored_by
from irformer.reporting.page import benchmark_table, image_table, write_page
from irformer.tasks.task import Task
from irformer.training.data_module import RestorationData
from irformer.training.lightning_internals import restore_loop_counters, spawns
from irformer.training.loggers import close_loggers, writer_errors_reported_once
from irformer.training.module import RestorationModule
from irformer.training.provenance import PROVENANCE, add_entry, cpu_name, start_entry
from irformer.training.ranks import RankWatch, lost_process
from irformer.training.resuming import LOGS, RESULTS, Resume, find_resume
from irformer.training.run_log import LOG, RunLog
from irformer.training.stopping import KILL, Stopped, StopSignals
from irformer.training.validation_images import ValidationImages
from irformer.weights.checkpoints import BEST, LAST, load_checkpoint

# Test images in the report, and the bytes that they take at most.
_VIEWED, _VIEWED_BYTES = 12, 5_000_000


@dataclass(frozen=True)
class Run:
    """A run, built and checked.

    Args:
        folder: folder for its files.
        title: short description of what is trained.
        config: configuration as YAML text.
        summary: what is printed before training and written into the report, by name.
        task: the task.
        module: network, loss and optimizer.
        data: training and validation data.
        validation: the validation set, and the images of it that `data` contains.
        trainer: Lightning's trainer; its root folder is `folder`.
        test_sets: test sets of the closing benchmark.
        resume: checkpoint to resume from, or None.
        stop: handler of the signals that stop the run.
        trust: classes that the run's own weights may name.
        channels: channels of the output of each group of the network, in the order of depth.
        resume_command: command that resumes the run.
    """

    folder: Path
    title: str
    config: str
    summary: dict[str, str]
    task: Task
    module: RestorationModule
    data: RestorationData
    validation: ValidationImages
    trainer: lightning.Trainer
    test_sets: list[TestSet]
    resume: Resume | None
    stop: StopSignals
    trust: Trust
    channels: Sequence[int]
    resume_command: str

    def execute(self, console: Console) -> dict[str, Any]:
        """Train, evaluate the best weights, and write results.json and report.html.

        Args:
            console: console for the summary and the table.

        Returns:
            The content of results.json; empty on all processes but the first.

        Raises:
            Stopped: a signal stopped the run; a line says what was saved and how to resume.
            UserError: another process trains in this folder, a process was killed, or a file cannot be read or written.
        """
        main = self.trainer.is_global_zero
        launcher = self.trainer.strategy.launcher
        self.stop.launcher, self.stop.rank = launcher, self.trainer.global_rank
        watch = RankWatch(launcher if main else None, self._report_lost_process)
        entry = self._start_entry() if main else {}
        header = f"{entry['started']} {entry['host']}: {entry['command']}" if main else ""
        try:
            with (
                locked(self.folder) if main else nullcontext(),
                RunLog(self.folder / LOG, f"# {header}") if main else nullcontext(),
                writer_errors_reported_once(),
                self.stop,
                watch,
            ):
                try:
                    self._open_folder(entry)
                    self._announce(console)
                    self._train(console)
                    close_loggers(self.trainer.loggers)
                    if not main:
                        return {}
                    record = self._benchmark(console)
                    self._print_closing_lines(console)
                    return record
                except BaseException as error:
                    ending = self._ending(error, console, watch)
                    if ending is error:
                        raise
                    raise ending from None
        except OSError as error:  # before the log is open
            raise self._in_one_line(error) from error

    def _start_entry(self) -> dict[str, Any]:
        device = self.trainer.strategy.root_device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
        return start_entry(sys.argv, self.resume.step if self.resume else 0, [name] * self.trainer.world_size)

    def _open_folder(self, entry: dict[str, Any]) -> None:
        """Check that files can be written, and truncate the logs to their size at the checkpoint."""
        if not self.trainer.is_global_zero:
            return
        require_writable(self.folder / LAST.parent)
        for folder in (self.folder, self.folder / LAST.parent):
            remove_temporary_files(folder)
        truncate_files(self.folder, LOGS, self.resume.sizes if self.resume else {})
        add_entry(self.folder / PROVENANCE, entry)

    def _ending(self, error: BaseException, console: Console, watch: RankWatch) -> BaseException:
        """Report what was saved, end the other processes, and return the error to raise: one line if the user can fix it."""
        main, launcher = self.trainer.is_global_zero, self.trainer.strategy.launcher
        lost = lost_process(error, launcher) if self.trainer.world_size > 1 else None
        if lost is not None:
            watch.wait_for_report()
        watch.stop()
        if main and launcher is not None:
            launcher.kill(KILL)  # they would wait for this process forever
        if isinstance(error, Stopped):
            self._print(console, f"stopped by {signal.Signals(error.signum).name}{self._saved()}")
        elif isinstance(error, UserError):  # such as a file that disappeared
            self._print(console, f"stopped by an error{self._saved()}")
            return without_traceback(error)
        elif lost is not None:
            return UserError(f"{lost}; stopped{self._saved()}")
        elif isinstance(error, OSError):
            return self._in_one_line(error)
        return error

    def _report_lost_process(self, what: str) -> int:
        """Print why a run of several processes ends, and return the exit status."""
        received = self.stop.received
        line = f"error: {what}; stopped" if received is None else f"stopped by {signal.Signals(received).name}"
        print(f"{line}{self._saved()}", file=sys.stderr, flush=True)
        return 1 if received is None else 128 + received

    def _in_one_line(self, error: OSError) -> Exception:
        fault = machine_fault(error, self.folder)
        if fault is None and not self.folder.is_dir():
            fault = f"{os.path.relpath(self.folder)}: the folder was removed during the run"
        return error if fault is None else UserError(f"{fault}; stopped{self._saved()}")

    def _saved(self) -> str:
        """Return the rest of a line: what was saved of a run that ended early, and how to resume it."""
        try:
            resume = find_resume(self.folder)
        except (UserError, OSError):
            return "; none of its checkpoints can be read"
        if resume is None:
            return " before its first checkpoint: nothing was saved, the same command starts again"
        step = f"saved at step {resume.step} of {self.trainer.max_steps}"
        return f", {step}; to resume: {self.resume_command}"

    def _train(self, console: Console) -> None:
        """Train up to the last step. If all steps are done, run the last validation if it is still pending."""
        resume = self.resume
        if resume is not None and resume.step >= self.trainer.max_steps:
            if resume.validation_due:
                # The logs are numbered by Lightning's counters, which it restores only for training.
                restore_loop_counters(self.trainer, torch.load(resume.file, weights_only=True, mmap=True))
                self.trainer.validate(self.module, self.data, ckpt_path=resume.file, verbose=False)
            return
        if spawns(self.trainer.strategy.launcher):
            self.stop.hold()  # the spawned processes handle signals, and their exit ends this one
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
        self._write_config()
        width = max(len(name) for name in self.summary)
        for name, value in self.summary.items():
            self._print(console, Text.assemble((f"{name:{width}}", "bold"), "  ", value))

    def _write_config(self) -> None:
        """Write config.yaml. Earlier versions are kept as config-1.yaml, config-2.yaml, ..., oldest first."""
        file = self.folder / CONFIG
        if file.is_file() and file.read_text(encoding="utf-8") == self.config:
            return
        number = next(n for n in count(1) if not (self.folder / f"config-{n}.yaml").exists())
        keep = self.folder / f"config-{number}.yaml"
        write_atomically(file, lambda temporary: temporary.write_text(self.config, encoding="utf-8"), keep)

    def _print(self, console: Console, line: str | Text) -> None:
        """Print a line without rich's markup, which names chosen by users may resemble."""
        if self.trainer.is_global_zero:
            console.print(Text(line) if isinstance(line, str) else line, soft_wrap=True)

    def _print_closing_lines(self, console: Console) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            for line in callback.closing_lines() if hasattr(callback, "closing_lines") else ():
                self._print(console, line)

    def _benchmark(self, console: Console) -> dict[str, Any]:
        best = load_checkpoint(self.folder / BEST, trust=self.trust)
        device = self.trainer.strategy.root_device
        restorer = NetworkRestorer(best.network.to(device), self.task.protocol.padding, device)
        untrained, trained = baseline(self.task), f"step {best.step}"
        restorers: dict[str, Restorer] = {untrained[0]: untrained[1], trained: restorer}
        results = {name: evaluate_sets(restorer, self.test_sets) for name, restorer in restorers.items()}
        titles = {untrained[0]: untrained[0], trained: f"{self.title}, {trained}"}
        table = benchmark_table(self.task, {titles[name]: row for name, row in results.items()})
        table.show(console)

        record = results_record(str(BEST), self.task, restorer.padding, list(results.values())[-1])
        record["step"] = best.step
        record["validation"] = self.validation.record
        record["trained_steps"] = self.trainer.max_steps
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            record |= callback.closing_record() if hasattr(callback, "closing_record") else {}
        self._draw_dynamics()
        write_page(
            self.folder / "report.html",
            title=self.title,
            summary=self.summary,
            tables=[table],
            images=gallery(self.test_sets, {name: restored_by(restorer) for name, restorer in restorers.items()}, results, _VIEWED),
            plots=run_charts({self.title: self.folder}, self.channels, {name: metric.traits for name, metric in self.task.metrics.items()}),
            details=[image_table(self.task, results)],
            image_bytes=_VIEWED_BYTES,
        )
        # Written last: a run with this file is complete.
        write_results(self.folder / RESULTS, record)
        for file in (RESULTS, "report.html", BEST):
            self._print(console, f"wrote {os.path.relpath(self.folder / file)}")
        return record

    def _draw_dynamics(self) -> None:
        """Write dynamics.png, the paper's Figure 1 of this run, if features were measured."""
        dynamics = self.folder / "dynamics.csv"
        if dynamics.is_file() and self.channels:
            figure1({self.title: read_dynamics(dynamics)}, self.channels, self.folder / "dynamics.png")
