"""Measure speed and memory on this machine: python scripts/speed.py WHAT."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from irformer.commands import command_line
from irformer.commands.common import device, reporting_user_errors
from irformer.config.compose import compose, instantiate, options
from irformer.core.files import require_writable
from irformer.reporting.page import readable_console
from irformer.speed import norm_layers, restoring, training_step
from irformer.speed.alternatives import Comparison, RateCache, table
from irformer.speed.machine import describe_machine
from irformer.speed.pipeline import SyntheticSet, data_rates, data_section, memory_over_batches
from irformer.speed.speed_report import Section, SpeedReport
from irformer.tasks.task import Task
from irformer.training.precision import set_precision

_ROUNDS, _QUICK_ROUNDS = 10, 3
_QUICK_NOTE = "--quick: smaller sizes and fewer rounds, to see that everything works; do not cite these numbers."


@dataclass(frozen=True)
class _Context:
    """What the subcommands share: the device with its rates, the number of rounds, and whether sizes are small."""

    rates: RateCache
    rounds: int
    quick: bool
    profiled: bool

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that are measured unless the command line names others."""
        return ("fp32", "bf16") if self.rates.device.type == "cuda" else ("fp32",)


def speed() -> None:
    """Measure on this machine: python scripts/speed.py WHAT."""
    arguments = command_line.speed().parse_args()
    with reporting_user_errors():
        if arguments.what == "data-memory":
            _data_memory(arguments)
            return
        for folder in {arguments.out, arguments.json and arguments.json.parent} - {None}:
            require_writable(folder)  # before minutes of measurements
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        set_precision("fp32", "auto")  # without TensorFloat-32, for all networks
        rounds = arguments.rounds or (_QUICK_ROUNDS if arguments.quick else _ROUNDS)
        context = _Context(RateCache(device(arguments.device)), rounds, arguments.quick, not arguments.no_profile)
        _finish(SpeedReport(describe_machine(context.rates.device), [_SECTIONS[arguments.what](arguments, context)]), arguments)


def _finish(report: SpeedReport, arguments: argparse.Namespace) -> None:
    """Print the results and write the files that were asked for."""
    console = readable_console()
    for section in report.sections:
        section.show(console)
    lines = [report.machine.line, *([_QUICK_NOTE] if arguments.quick else [])]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    files: list[tuple[Path, Callable[[Path], None]]] = [(arguments.json, report.write_json)] if arguments.json else []
    if arguments.out:
        files += [(arguments.out / "speed.json", report.write_json), (arguments.out / "speed.md", report.write_markdown)]
    for file, write in files:
        write(file)
        print(f"wrote {file}")


def _say(what: str) -> None:
    """Show what is being measured, without mixing it with the results."""
    print(f"measuring: {what}", file=sys.stderr, flush=True)


def _train(arguments: argparse.Namespace, context: _Context) -> Section:
    cases = _selected(training_step.QUICK if context.quick else training_step.CASES, arguments, training_step.Step("", 2, 1, 32))
    changes = {name: value for name in ("batch", "patch") if (value := getattr(arguments, name)) is not None}
    return _comparisons(
        "train", "Training steps", training_step.compare_steps, [replace(case, **changes) for case in cases], arguments, context
    )


def _infer(arguments: argparse.Namespace, context: _Context) -> Section:
    cases = _selected(restoring.QUICK if context.quick else restoring.CASES, arguments, restoring.Restoring("", 2, 64))
    if arguments.size:
        cases = [replace(case, size=size) for case in {case.model: case for case in cases}.values() for size in arguments.size]
    return _comparisons("infer", "Restoring images", restoring.compare_restoring, cases, arguments, context)


def _selected(cases: Sequence[Any], arguments: argparse.Namespace, other: Any) -> list[Any]:
    """Return the cases of the models on the command line; a model without cases gets `other`, at the scale of its class if it has one."""
    if arguments.models:
        own = {name: [case for case in cases if case.model == name] for name in arguments.models}
        cases = [case for name, found in own.items() for case in found or [replace(other, model=name, scale=_default_scale(name))]]
    return [case if arguments.scale is None else replace(case, scale=arguments.scale) for case in cases]


def _default_scale(model: str) -> int | None:
    return None if model.startswith("restormer") else 2


def _comparisons(
    name: str, title: str, measure: Callable[..., Comparison], cases: Sequence[Any], arguments: argparse.Namespace, context: _Context
) -> Section:
    """Measure cases one after another."""
    found = []
    for case in cases:
        _say(case.title)
        precisions = arguments.precision or context.precisions
        norms = arguments.norms or ["ln", "iln"]
        found.append(measure(case, context.rates, norms, precisions, arguments.compile, context.rounds, context.profiled))
    return Section(name, title, [table(title, found)], [line for comparison in found for line in comparison.lines], found)


def _norm(arguments: argparse.Namespace, context: _Context) -> Section:
    norms = arguments.norms or [name for name in options("norm") if not name.endswith("_eval")]
    shapes = norm_layers.QUICK_SHAPES if context.quick else norm_layers.SHAPES
    layers = []
    for part in (norm_layers.FORWARD, norm_layers.BACKWARD):
        for shape in shapes:
            _say(f"norms, {part}, {list(shape)}")
            layers.append(norm_layers.time_norms(shape, part, norms, context.rates.device, arguments.compile, context.rounds))
    return Section("norm", "Norms", norm_layers.norm_tables(layers), [], layers)


def _data(arguments: argparse.Namespace, context: _Context) -> Section:
    with tempfile.TemporaryDirectory(prefix="irformer-speed-") as folder:
        _say("training data, from images of the size of DIV2K's")
        images = SyntheticSet(Path(folder))
        jpeg = [_task(name) for name in options("task") if name.startswith("jpeg") and name.endswith("40")]
        return data_section(data_rates(images, _task("sr_x2"), jpeg, arguments.seconds or (0.5 if context.quick else 3.0)))


def _data_memory(arguments: argparse.Namespace) -> None:
    totals = []

    def show(read: int, own: list[float], mapped: float) -> None:
        totals.append(sum(own))
        each = " + ".join(f"{mebibytes:.0f}" for mebibytes in own)
        print(f"after {read:6,} batches: {sum(own):.0f} MiB in {len(own)} processes ({each}), mapped files {mapped:.0f} MiB", flush=True)

    with tempfile.TemporaryDirectory(prefix="irformer-speed-") as folder:
        images = SyntheticSet(Path(folder))
        source = images.files(cache_bytes=1 << 30) if arguments.files else images.packed(2, lq=True)
        memory_over_batches(source, _task("sr_x2"), arguments.batches, arguments.workers, show)
    print(f"from the first tenth to the last: {totals[-1] - totals[0]:+.1f} MiB")


def _task(name: str) -> Task:
    task: Task = instantiate(compose("train", [f"task={name}"]).task)
    return task


_SECTIONS: dict[str, Callable[[argparse.Namespace, _Context], Section]] = {"train": _train, "infer": _infer, "norm": _norm, "data": _data}
