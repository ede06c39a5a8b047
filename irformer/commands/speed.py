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
from irformer.commands.command_line import END, START
from irformer.commands.common import device, reporting_user_errors
from irformer.config.compose import compose, instantiate, options
from irformer.core.files import require_writable
from irformer.errors import UserError
from irformer.reporting.page import readable_console
from irformer.speed import (
    bounded_memory,
    graph_agreement,
    loop_overhead,
    norm_layers,
    peak_memory,
    restoring,
    scaling_curves,
    startup_times,
    training_step,
)
from irformer.speed.alternatives import Comparison, Options, RateCache, table
from irformer.speed.machine import describe_machine
from irformer.speed.pipeline import SyntheticSet, data_rates, data_section, memory_over_batches
from irformer.speed.speed_report import Section, SpeedReport
from irformer.tasks.task import Task
from irformer.training.network_call import CallSettings, build_call
from irformer.training.precision import set_precision

_ROUNDS, _QUICK_ROUNDS = 10, 3
_ALL = ("infer", "train", "norm", "loop", "memory", "data", "startup", "scaling")
_TOGETHER = {"all": _ALL, "deployment": ("bounded", "onnx")}
_FOLDER = Path("runs/speed")
_QUICK_NOTE = "--quick: smaller sizes, fewer networks and fewer rounds, to see that everything works; do not cite these numbers."


def speed() -> None:
    """Measure on this machine: python scripts/speed.py WHAT."""
    arguments = command_line.speed().parse_args()
    with reporting_user_errors():
        if arguments.what == "data-memory":
            _data_memory(arguments)
        else:
            _measure(arguments)


@dataclass(frozen=True)
class _Context:
    """What the subcommands share.

    Args:
        rates: the device and its rates.
        rounds: number of rounds.
        quick: whether sizes are small.
        figures: the files to which a figure is drawn.
    """

    rates: RateCache
    rounds: int
    quick: bool
    figures: tuple[Path, ...]

    @property
    def device(self) -> torch.device:
        """The device."""
        return self.rates.device


def _measure(arguments: argparse.Namespace) -> None:
    """Run one subcommand or all. The files are written after each, so that an interruption loses only the one that is running."""
    folder = arguments.out or (_FOLDER if arguments.what in ("all", "scaling") else None)
    for needed in {folder, arguments.json and arguments.json.parent} - {None}:
        require_writable(needed)  # before minutes of measurements
    page = getattr(arguments, "page", None)
    figures = [folder / name for name in ("scaling.png", "scaling.svg")] if folder else []
    if page is not None:
        _parts_of_page(page)
        figures.append(page.parent / "scaling.svg")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    set_precision("fp32", "auto")  # without TensorFloat-32, for all networks
    on = device(arguments.device if arguments.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    if getattr(arguments, "compile", False):
        _require_compiler(on)
    rounds = arguments.rounds or (_QUICK_ROUNDS if arguments.quick else _ROUNDS)
    context = _Context(RateCache(on), rounds, arguments.quick, tuple(figures))
    report = SpeedReport(describe_machine(context.device), [], [_QUICK_NOTE] if arguments.quick else [])
    console = readable_console()
    files = [arguments.json] if arguments.json else []
    for name in _TOGETHER.get(arguments.what, (arguments.what,)):
        section = _SECTIONS[name](arguments, context)
        section.show(console)
        report = replace(report, sections=[*report.sections, section])
        for file in files:
            report.write_json(file)
        if folder:
            report.write_json(folder / "speed.json")
            report.write_markdown(folder / "speed.md")
    for line in (report.machine.line, *report.notes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if page is not None:
        before, after = _parts_of_page(page)
        page.write_text(f"{before}{START}\n\n{report.markdown()}\n{END}{after}", encoding="utf-8")
    written = [*files, *([folder / "speed.json", folder / "speed.md"] if folder else []), *([page] if page else [])]
    for file in written:
        print(f"wrote {file}")


def _require_compiler(on: torch.device) -> None:
    """Check that networks can be compiled, before minutes of measurements."""
    call, notes = build_call(CallSettings(compile=True), torch.nn.Identity(), on, sizes=1, deterministic=False)
    if call.mode is None:
        raise UserError(f"--compile: {notes['compile'].partition('has no effect: ')[2]}; measure without it")


def _parts_of_page(page: Path) -> tuple[str, str]:
    """Return what stands before and after the generated part of a page."""
    text = page.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise UserError(f"{page}: expected a page with the lines {START} and {END}")
    return text.partition(START)[0], text.partition(END)[2]


def _say(what: str) -> None:
    """Show what is being measured, without mixing it with the results."""
    print(f"measuring: {what}", file=sys.stderr, flush=True)


def _train(arguments: argparse.Namespace, context: _Context) -> Section:
    cases = _steps(training_step.QUICK if context.quick else training_step.CASES, arguments)
    found = _compared(training_step.compare_steps, cases, context, _options(arguments, context))
    return _comparisons("train", "Training steps", found)


def _steps(cases: Sequence[training_step.Step], arguments: argparse.Namespace) -> list[training_step.Step]:
    """Return the cases of the models on the command line, with its batch and patch size."""
    changes = {name: value for name in ("batch", "patch") if (value := getattr(arguments, name)) is not None}
    return [replace(case, **changes) for case in _selected(cases, arguments, training_step.Step("", 2, 1, 32))]


def _infer(arguments: argparse.Namespace, context: _Context) -> Section:
    cases = _selected(restoring.QUICK if context.quick else restoring.CASES, arguments, restoring.Restoring("", 2, 64))
    cases = _of_size(cases, arguments.size)
    found = _compared(restoring.compare_restoring, cases, context, _options(arguments, context))
    return _comparisons("infer", "Restoring images", found)


def _selected(cases: Sequence[Any], arguments: argparse.Namespace, other: Any) -> list[Any]:
    """Return the cases of the models on the command line; a model without cases gets `other`."""
    if arguments.models:
        own = {name: [case for case in cases if case.model == name] for name in arguments.models}
        cases = [case for name, found in own.items() for case in found or [replace(other, model=name, scale=_default_scale(name))]]
    return [case if arguments.scale is None else replace(case, scale=arguments.scale) for case in cases]


def _of_size(cases: Sequence[Any], sizes: Sequence[int] | None) -> list[Any]:
    """Return the cases, or one case of each model for each of the sizes on the command line."""
    if not sizes:
        return list(cases)
    return [replace(case, size=size) for case in {case.model: case for case in cases}.values() for size in sizes]


def _default_scale(model: str) -> int | None:
    return None if model.startswith("restormer") else 2


def _options(arguments: argparse.Namespace, context: _Context) -> Options:
    precisions = arguments.precision or (["fp32", "bf16"] if context.device.type == "cuda" else ["fp32"])
    norms = arguments.norms or ["ln", "iln"]
    backends = getattr(arguments, "backends", ())
    if backends and context.device.type != "cpu":
        raise UserError(f"--backends {' '.join(backends)}: these compute on the CPU; add --device cpu")
    return Options(context.rounds, norms, precisions, arguments.compile, profiled=not arguments.no_profile, backends=backends)


def _compared(measure: Callable[..., Comparison], cases: Sequence[Any], context: _Context, options: Options) -> list[Comparison]:
    found = []
    for case in cases:
        _say(case.title)
        found.append(measure(case, context.rates, options))
    return found


def _comparisons(name: str, title: str, found: list[Comparison]) -> Section:
    return Section(name, title, [table(title, found)], [line for comparison in found for line in comparison.lines], found)


def _norm(arguments: argparse.Namespace, context: _Context) -> Section:
    known = ["ln", "iln"] if context.quick else [name for name in options("norm") if not name.endswith("_eval")]
    norms = arguments.norms or known
    shapes = norm_layers.QUICK_SHAPES if context.quick else norm_layers.SHAPES
    layers = []
    for part in (norm_layers.FORWARD, norm_layers.BACKWARD):
        for shape in shapes:
            _say(f"norms, {part}, {list(shape)}")
            layers.append(norm_layers.time_norms(shape, part, norms, context.device, arguments.compile, context.rounds))
    others = [name for name in arguments.norms or ["iln"] if name != "ln"]
    within = Options(context.rounds, ["ln", *others], compile=arguments.compile, official=False, profiled=False)
    networks = [
        *_compared(restoring.compare_restoring, [norm_layers.QUICK_RESTORING if context.quick else norm_layers.RESTORING], context, within),
        *_compared(training_step.compare_steps, [norm_layers.QUICK_STEP if context.quick else norm_layers.STEP], context, within),
    ]
    tables = [*norm_layers.norm_tables(layers), table("Norms in a network", networks)]
    return Section("norm", "Norms", tables, [], [*layers, *networks])


def _loop(arguments: argparse.Namespace, context: _Context) -> Section:
    found = []
    for case in _steps(loop_overhead.QUICK if context.quick else loop_overhead.CASES, arguments):
        for precision in arguments.precision or ["bf16" if context.device.type == "cuda" else "fp32"]:
            _say(f"loop, {case.title}, {precision}")
            with tempfile.TemporaryDirectory(prefix="irformer-speed-") as folder:
                found.append(loop_overhead.time_loop(case, precision, context.device, context.rounds, Path(folder)))
    lines = [result.ratio.line for result in found if result.ratio.line]
    return Section("loop", "The training loop", [loop_overhead.loop_table(found)], lines, found)


def _memory(arguments: argparse.Namespace, context: _Context) -> Section:
    found = []
    for case in _of_size(peak_memory.QUICK if context.quick else peak_memory.CASES, arguments.size):
        _say(f"memory, {case.title}")
        found.append(peak_memory.compare_memory(case, arguments.norms or ["ln", "iln"], context.device))
    return Section("memory", "Memory", [peak_memory.memory_table(found)], [line for result in found for line in result.lines], found)


def _bounded(arguments: argparse.Namespace, context: _Context) -> Section:
    cases = _selected(bounded_memory.QUICK if context.quick else bounded_memory.CASES, arguments, restoring.Restoring("", 2, 512))
    found = []
    for case in _of_size(cases, arguments.size):
        for norm in arguments.norms or ["ln", "iln"]:
            _say(f"bounded, {case.title}, {norm}")
            found.append(bounded_memory.compare_bounded(case, norm, arguments.memory, context.device))
    return Section("bounded", "Bounded memory", [bounded_memory.bounded_table(found)], [], found)


def _onnx(arguments: argparse.Namespace, context: _Context) -> Section:
    cases = _selected(graph_agreement.QUICK if context.quick else graph_agreement.CASES, arguments, restoring.Restoring("", 2, 128))
    found = []
    for case in {case.model: case for case in cases}.values():
        sizes = arguments.size or [other.size for other in cases if other.model == case.model]
        for norm in arguments.norms or ["ln", "iln"]:
            _say(f"onnx, {case.model}, {norm}")
            found += graph_agreement.export_measured(case.model, case.scale, norm, sizes)
    return Section("onnx", "ONNX files", [graph_agreement.agreement_table(found)], [], found)


def _startup(arguments: argparse.Namespace, context: _Context) -> Section:
    _say("start-up")
    with tempfile.TemporaryDirectory(prefix="irformer-speed-") as folder:
        model = "swinir_tiny" if context.quick else "swinir_light"
        found = startup_times.time_startup(context.rounds, 1 if context.quick else context.rounds, Path(folder), model)
    return Section("startup", "Start-up", [startup_times.startup_table(found)], startup_times.startup_lines(found), found)


def _scaling(arguments: argparse.Namespace, context: _Context) -> Section:
    _say("scaling")
    curves = scaling_curves.scaling_curves(["ln", "iln"], context.device, context.rounds, context.quick)
    machine = describe_machine(context.device)
    title = (
        f"Restoring with {scaling_curves.MODEL} and its variants on {machine.device_name}, {machine.threads} threads, {machine.date[:10]}"
    )
    for file in context.figures:
        scaling_curves.draw_scaling(curves, title, file)
        print(f"wrote {file}")
    return Section("scaling", "Scaling", [scaling_curves.scaling_table(curves)], [], curves, "scaling.svg")


def _data(arguments: argparse.Namespace, context: _Context) -> Section:
    _say("training data, from images of the size of DIV2K's")
    with tempfile.TemporaryDirectory(prefix="irformer-speed-") as folder:
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


_SECTIONS: dict[str, Callable[[argparse.Namespace, _Context], Section]] = {
    "train": _train,
    "infer": _infer,
    "norm": _norm,
    "loop": _loop,
    "memory": _memory,
    "bounded": _bounded,
    "onnx": _onnx,
    "startup": _startup,
    "scaling": _scaling,
    "data": _data,
}
