"""A run from its first step to its report: training, the benchmark of its best weights, and the files that it leaves."""

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
from irformer.reporting.page import benchmark_table, crop_rows, write_page
from irformer.tasks.task import Task
from irformer.training.callbacks.debugging import Overfit
from irformer.training.callbacks.monitor import Monitor
from irformer.training.data_module import RestorationData
from irformer.training.lightning_internals import restore_loop_counters, spawns
from irformer.training.loggers import close_loggers, writer_errors_reported_once
from irformer.training.module import RestorationModule
from irformer.training.provenance import PROVENANCE, add_entry, cpu_name, start_entry
from irformer.training.ranks import RankWatch, lost_process
from irformer.training.resuming import LOGS, RESULTS, Resume, find_resume
from irformer.training.run_log import LOG, RunLog
from irformer.training.stopping import KILL, Stopped, StopSignals
from irformer.weights.checkpoints import BEST, LAST, load_checkpoint


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
        channels: C of the output of each of the network's groups, in the order of depth.
        resume_command: the command that resumes the run.
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
    channels: Sequence[int]
    resume_command: str

    def execute(self, console: Console) -> dict[str, Any]:
        """Train, then measure the best weights and write results.json and report.html.

        Args:
            console: where the summary and the table are printed.

        Returns:
            What results.json holds; nothing on other processes than the first.

        Raises:
            Stopped: a signal has ended the run; a line says what was saved and how to resume.
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
                    self._tell_closing_lines(console)
                    return record
                except BaseException as error:
                    ending = self._ending(error, console, watch)
                    if ending is error:
                        raise
                    raise ending from None
        except OSError as error:  # before there is a log
            raise self._in_one_line(error) from error

    def _start_entry(self) -> dict[str, Any]:
        device = self.trainer.strategy.root_device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
        return start_entry(sys.argv, self.resume.step if self.resume else 0, [name] * self.trainer.world_size)

    def _open_folder(self, entry: dict[str, Any]) -> None:
        """Check that files can be written, and cut the logs back to what they held at the checkpoint."""
        if not self.trainer.is_global_zero:
            return
        require_writable(self.folder / LAST.parent)
        for folder in (self.folder, self.folder / LAST.parent):
            remove_temporary_files(folder)
        truncate_files(self.folder, LOGS, self.resume.sizes if self.resume else {})
        add_entry(self.folder / PROVENANCE, entry)

    def _ending(self, error: BaseException, console: Console, watch: RankWatch) -> BaseException:
        """Say what was saved, end the other processes, and give what is to be raised: in one line, where the user can mend it."""
        main, launcher = self.trainer.is_global_zero, self.trainer.strategy.launcher
        lost = lost_process(error, launcher) if self.trainer.world_size > 1 else None
        if lost is not None:
            watch.wait_for_report()
        watch.stop()
        if main and launcher is not None:
            launcher.kill(KILL)  # those that wait for this process would wait for ever
        if isinstance(error, Stopped):
            self._tell(console, f"stopped by {signal.Signals(error.signum).name}{self._saved()}")
        elif isinstance(error, UserError):  # a file that cannot be read any more
            self._tell(console, f"stopped by an error{self._saved()}")
            return without_traceback(error)
        elif lost is not None:
            return UserError(f"{lost}; stopped{self._saved()}")
        elif isinstance(error, OSError):
            return self._in_one_line(error)
        return error

    def _report_lost_process(self, what: str) -> int:
        """Print why a run of several processes ends; the exit status."""
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
        """What there is of a run that has ended early, and how to resume it, as the rest of a line."""
        try:
            resume = find_resume(self.folder)
        except (UserError, OSError):
            return "; no checkpoint of it can be read"
        if resume is None:
            return " before its first checkpoint: nothing was saved, and the same command starts again"
        step = f"saved at step {resume.step} of {self.trainer.max_steps}"
        return f", {step}; to go on: {self.resume_command}"

    def _train(self, console: Console) -> None:
        """Train from where the run stands to its last step; where that is done already, do the validation that may be due."""
        resume = self.resume
        if resume is not None and resume.step >= self.trainer.max_steps:
            if resume.validation_due:
                # Lightning restores its counters for training alone, and the logs are numbered by them.
                restore_loop_counters(self.trainer, torch.load(resume.file, weights_only=True, mmap=True))
                self.trainer.validate(self.module, self.data, ckpt_path=resume.file, verbose=False)
            return
        if spawns(self.trainer.strategy.launcher):
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
        self._write_config()
        width = max(len(name) for name in self.facts)
        for name, value in self.facts.items():
            self._tell(console, Text.assemble((f"{name:{width}}", "bold"), "  ", value))

    def _write_config(self) -> None:
        """Write config.yaml. One that said something else stays as config-1.yaml, config-2.yaml, ..., the oldest first."""
        file = self.folder / CONFIG
        if file.is_file() and file.read_text(encoding="utf-8") == self.config:
            return
        number = next(n for n in count(1) if not (self.folder / f"config-{n}.yaml").exists())
        keep = self.folder / f"config-{number}.yaml"
        write_atomically(file, lambda aside: aside.write_text(self.config, encoding="utf-8"), keep)

    def _tell(self, console: Console, line: str | Text) -> None:
        """Print a line as it is: what users have named may look like rich's markup."""
        if self.trainer.is_global_zero:
            console.print(Text(line) if isinstance(line, str) else line, soft_wrap=True)

    def _tell_closing_lines(self, console: Console) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Monitor | Overfit):
                for line in callback.closing_lines():
                    self._tell(console, line)

    def _benchmark(self, console: Console) -> dict[str, Any]:
        best = load_checkpoint(self.folder / BEST, trust=self.trust)
        device = self.trainer.strategy.root_device
        restorer = NetworkRestorer(best.network.to(device), self.task.protocol.padding, device)
        name, untrained = baseline(self.task)
        restorers: dict[str, Restorer] = {name: untrained, f"{self.title}, step {best.step}": restorer}
        results = {name: evaluate_sets(restorer, self.test_sets) for name, restorer in restorers.items()}
        table = benchmark_table(self.task, results)
        table.show(console)

        record = results_record(str(BEST), self.task, restorer.padding, list(results.values())[-1])
        record["step"] = best.step
        record["trained_steps"] = self.trainer.max_steps
        write_page(
            self.folder / "report.html",
            title=self.title,
            summary=self.facts,
            tables=[table],
            figure=self._figure(),
            crops=crop_rows(self.test_sets[0], restorers),
        )
        # The last file: where it is, nothing is left to do.
        write_results(self.folder / RESULTS, record)
        for file in (RESULTS, "report.html", BEST):
            self._tell(console, f"wrote {os.path.relpath(self.folder / file)}")
        return record

    def _figure(self) -> Path | None:
        dynamics = self.folder / "dynamics.csv"
        if not dynamics.is_file() or not self.channels:
            return None
        figure = self.folder / "dynamics.png"
        figure1({self.title: read_dynamics(dynamics)}, self.channels, figure)
        return figure
