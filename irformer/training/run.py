"""A run from its first step to its report: training, the benchmark of its best weights, and the files that it leaves."""

import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from rich.console import Console
from rich.markup import escape
from tqdm import tqdm

from irformer.benchmark import SetResult, evaluate, results_record
from irformer.checkpoints import BEST, LAST, load_checkpoint
from irformer.data.module import RestorationData
from irformer.data.test_sets import TestSet
from irformer.dynamics.figures import figure1, read_dynamics
from irformer.dynamics.probe import Probe
from irformer.errors import UserError, without_traceback
from irformer.files import write_atomically
from irformer.inference import NetworkRestorer, Restorer, baseline
from irformer.report import benchmark_table, crop_rows, write_page
from irformer.tasks import Task
from irformer.training.module import RestorationModule

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
    resume: Path | None

    def execute(self, console: Console) -> dict[str, Any]:
        """Train, then measure the best weights and write results.json and report.html.

        Args:
            console: where the summary and the table are printed.

        Returns:
            What results.json holds.
        """
        self._announce(console)
        started = time.monotonic()
        try:
            self.trainer.fit(self.module, self.data, ckpt_path=self.resume)
        except SystemExit:  # Lightning's answer to Ctrl-C
            self._tell_how_to_resume(console)
            raise
        except UserError as error:  # a file that cannot be read any more
            self._tell_how_to_resume(console)
            raise without_traceback(error) from None
        seconds = time.monotonic() - started
        self._validate_end()
        self.trainer.strategy.barrier()
        record: dict[str, Any] = {}
        if self.trainer.is_global_zero:
            self._tell_probe_share(console, seconds)
            record = self._benchmark(console)
        return record

    def _announce(self, console: Console) -> None:
        if not self.trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "config.yaml", lambda aside: aside.write_text(self.config, encoding="utf-8"))
        width = max(len(name) for name in self.facts)
        for name, value in self.facts.items():
            console.print(f"[bold]{name:{width}}[/bold]  {escape(value)}", highlight=False, soft_wrap=True)

    def _tell_how_to_resume(self, console: Console) -> None:
        folder = os.path.relpath(self.folder)
        if (self.folder / LAST).is_file():
            console.print(f"stopped at step {self.trainer.global_step}; to go on from the last checkpoint: python train.py resume={folder}")
        else:
            console.print(f"stopped at step {self.trainer.global_step}, before the first checkpoint (checkpoint_every)")

    def _validate_end(self) -> None:
        """Validate the last step, if the interval did not fall on it, so that the weights at the end are a candidate for the best."""
        interval = int(self.trainer.val_check_interval)
        if self.trainer.global_step % interval:
            self.trainer.validate(self.module, self.data, verbose=False)

    def _tell_probe_share(self, console: Console, seconds: float) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Probe) and seconds > 0:
                console.print(f"probe: {100 * callback.seconds / seconds:.1f} % of the run's time")

    def _benchmark(self, console: Console) -> dict[str, Any]:
        best = load_checkpoint(self.folder / BEST)
        device = self.trainer.strategy.root_device
        restorer = NetworkRestorer(best.network.to(device), self.task.protocol.padding, device)
        name, untrained = baseline(self.task)
        restorers: dict[str, Restorer] = {name: untrained, f"{self.title}, step {best.step}": restorer}
        results = {name: measure_test_sets(restorer, self.test_sets) for name, restorer in restorers.items()}
        table = benchmark_table(self.task, results)
        table.show(console)

        record = results_record(str(BEST), self.task, restorer.padding, list(results.values())[-1])
        record["step"] = best.step
        write_atomically(self.folder / "results.json", lambda aside: aside.write_text(json.dumps(record, indent=1) + "\n"))
        write_page(
            self.folder / "report.html",
            title=self.title,
            facts=self.facts,
            tables=[table],
            figure=self._figure(),
            crops=crop_rows(self.test_sets[0], restorers),
        )
        for file in ("results.json", "report.html", BEST):
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
