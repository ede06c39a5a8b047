"""One comparison: the same work done by several networks, their times, ratios, floors and operators, and its table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from irformer.graphs.runtimes import Backend
from irformer.reporting.tables import Cell, Number, ResultTable
from irformer.speed.floors import Cost, Rates, measure_rates
from irformer.speed.measure import Timing, interleaved, ratio
from irformer.speed.operators import Share, operator_shares, shares_line
from irformer.speed.peers import OFFICIAL
from irformer.speed.verdicts import Finding, find_target, verdicts

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Setting:
    """How a network is run.

    Args:
        network: `official`, or the name of a norm.
        precision: `fp32`, or `bf16` for autocast.
        compiled: whether torch.compile is used.
        backend: `torch`, or the runtime of an exported ONNX file.
    """

    network: str
    precision: str = "fp32"
    compiled: bool = False
    backend: str = "torch"

    @property
    def name(self) -> str:
        """The name in tables, such as `ln bf16 compiled`; fp32 and eager are not mentioned."""
        words = [self.network, self.precision if self.precision != "fp32" else "", "compiled" if self.compiled else ""]
        words.append(self.backend if self.backend != "torch" else "")
        return " ".join(word for word in words if word)

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context of the precision."""
        return nullcontext() if self.precision == "fp32" else torch.autocast(device.type, DTYPES[self.precision])


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Args:
        work: the work in words.
        settings: the alternatives, in the order of the timings.
        timings: their times.
        ratios: ratios between them.
        cost: what the work needs at least, for each precision.
        floors: the floor in seconds for each precision.
        floor_lines: the floors in words.
        operators: the largest operators of some alternatives, by name.
        notes: what a reader must know.
    """

    work: str
    settings: tuple[Setting, ...]
    timings: tuple[Timing, ...]
    ratios: tuple[Finding, ...]
    cost: dict[str, Cost]
    floors: dict[str, float]
    floor_lines: tuple[str, ...]
    operators: dict[str, tuple[Share, ...]]
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """Verdicts, floors and operators in words."""
        operators = [f"{self.work}: {shares_line(name, shares)}" for name, shares in self.operators.items()]
        return [*verdicts(self.ratios), *(f"{self.work}: {line}" for line in self.floor_lines), *operators, *self.notes]


@dataclass(frozen=True)
class Options:
    """What a comparison of networks varies.

    Args:
        rounds: number of rounds.
        norms: the norms of irformer's networks.
        precisions: `fp32`, `bf16`.
        compile: whether irformer's networks are also compiled.
        official: whether the official network is measured, if there is one.
        profiled: whether irformer's eager networks are profiled.
        backends: runtimes of exported ONNX files that are also measured, in fp32.
    """

    rounds: int
    norms: Sequence[str] = ("ln", "iln")
    precisions: Sequence[str] = ("fp32",)
    compile: bool = False
    official: bool = True
    profiled: bool = True
    backends: Sequence[Backend] = ()

    def settings(self, official: bool) -> list[Setting]:
        """Return the alternatives of a comparison.

        Args:
            official: whether there is an official network. It also runs in fp32 if only bf16 is asked for, because that is its default.
        """
        found = [Setting(OFFICIAL)] if official and "fp32" not in self.precisions else []
        for precision in self.precisions:
            found += [Setting(OFFICIAL, precision)] if official else []
            found += [
                Setting(norm, precision, compiled) for compiled in ([False, True] if self.compile else [False]) for norm in self.norms
            ]
        return [*found, *(Setting(norm, backend=backend) for backend in self.backends for norm in self.norms)]


def compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Compile a network for inputs of one size, as `trainer.compile=true` does."""
    call: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False)
    return call


def forget_compiled() -> None:
    """Drop all compiled code: after a few networks of the same class, PyTorch would run the next one uncompiled without an error."""
    torch.compiler.reset()


class RateCache:
    """The rates of a device, measured once for each precision.

    Args:
        device: the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._rates: dict[str, Rates] = {}

    def __getitem__(self, precision: str) -> Rates:
        if precision not in self._rates:
            self._rates[precision] = measure_rates(self.device, DTYPES[precision])
        return self._rates[precision]


def compare(
    work: str,
    calls: Mapping[Setting, Callable[[], object]],
    cost: Mapping[str, Cost],
    rates: RateCache,
    options: Options,
    notes: Sequence[str] = (),
) -> Comparison:
    """Time alternatives and relate them to each other and to the floor.

    Args:
        work: the work in words.
        calls: the alternatives.
        cost: cost of the work in each precision.
        rates: rates of the device.
        options: number of rounds, and whether to profile.
        notes: lines below the table.
    """
    timings = interleaved({setting.name: call for setting, call in calls.items()}, rates.device, options.rounds)
    floors = {precision: of.floor(rates[precision]) for precision, of in cost.items()}
    lines = [f"{precision} {of.line(rates[precision])}" for precision, of in cost.items()]
    first = next(iter(cost))
    eager = [setting for setting in calls if setting == Setting(setting.network, first) and setting.network != OFFICIAL]
    operators = {setting.name: operator_shares(calls[setting], rates.device) for setting in eager} if options.profiled else {}
    ratios = tuple(_ratios(work, list(calls), timings, rates.device.type))
    return Comparison(
        work,
        tuple(calls),
        tuple(timings[setting.name] for setting in calls),
        ratios,
        dict(cost),
        floors,
        tuple(lines),
        operators,
        tuple(notes),
    )


def _ratios(work: str, alternatives: Sequence[Setting], timings: Mapping[str, Timing], device: str) -> Iterator[Finding]:
    pairs = []
    for setting in alternatives:
        reference = replace(setting, network="ln")
        if setting.network == "ln":
            official = Setting(OFFICIAL, setting.precision)
            pairs += [(official, setting)] if official in alternatives else []
        elif setting.network != OFFICIAL and reference in alternatives:
            pairs.append((setting, reference))
    for of, to in pairs:
        name = f"{of.name} / {to.name}"
        yield Finding(name, work, ratio(timings[of.name], timings[to.name]), find_target(work, name, device))
    ours = [setting for setting in alternatives if setting.network != OFFICIAL]
    if Setting(OFFICIAL) in alternatives and ours:
        best = min(ours, key=lambda setting: timings[setting.name].spread.median)
        target = find_target(work, f"{OFFICIAL} / best of irformer", device)
        name = f"{OFFICIAL} / best of irformer, {best.name}"
        yield Finding(name, work, ratio(timings[OFFICIAL], timings[best.name]), target)


def table(title: str, comparisons: Sequence[Comparison]) -> ResultTable:
    """Return the table of several comparisons, one row for each alternative."""
    header = ["work", "network", "ms", "quartiles", "official / this", "this / ln", "times the floor"]
    rows: list[list[Cell]] = []
    for comparison in comparisons:
        timings = {timing.name: timing for timing in comparison.timings}
        for setting in comparison.settings:
            timing = timings[setting.name]
            official = timings.get(Setting(OFFICIAL, setting.precision).name)
            layer_norm = timings.get(replace(setting, network="ln").name)
            floor = comparison.floors.get(setting.precision)
            rows.append(
                [
                    comparison.work,
                    setting.name,
                    milliseconds(timing.spread.median),
                    f"{milliseconds(timing.spread.low).text} to {milliseconds(timing.spread.high).text}",
                    None if official is None or official is timing else Number(ratio(official, timing).median, 2),
                    None if layer_norm is None or setting.network == OFFICIAL else Number(ratio(timing, layer_norm).median, 2),
                    None if floor is None else Number(timing.spread.median / floor, 1),
                ]
            )
    return ResultTable(title, header, rows)


def milliseconds(seconds: float) -> Number:
    """Return a time as a number of milliseconds with three significant digits."""
    value = 1000 * seconds
    return Number(value, next((digits for bound, digits in ((100, 0), (10, 1), (1, 2)) if value >= bound), 3))
