"""Norms by themselves: forward, and forward with backward, against F.layer_norm at several shapes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irformer.config.compose import instantiate, norm_config
from irformer.norms import NormScheme
from irformer.reporting.tables import Cell, ResultTable
from irformer.speed.alternatives import forget_compiled, milliseconds
from irformer.speed.measure import Spread, Timing, interleaved, ratio
from irformer.speed.restoring import Restoring
from irformer.speed.training_step import Step

REFERENCE = "F.layer_norm"
FORWARD, BACKWARD = "forward", "forward and backward"
# [B, H, W, C]: an image and a training batch of swinir_light, a large image, and a training batch of swinir.
SHAPES = ((1, 128, 128, 60), (4, 48, 48, 60), (1, 256, 256, 60), (16, 48, 48, 180))
QUICK_SHAPES = ((1, 32, 32, 60),)
RESTORING, STEP = Restoring("swinir_light", 2, 128), Step("swinir_light", 2, 2, 48)
QUICK_RESTORING, QUICK_STEP = Restoring("swinir_tiny", 2, 32), Step("swinir_tiny", 2, 1, 16)
Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class NormTimes:
    """The times of several norms on the same features.

    Args:
        shape: shape of the features, [B, H, W, C].
        part: `forward`, or `forward and backward`.
        timings: the times, first that of F.layer_norm.
        ratios: the ratio of each norm's time to that of F.layer_norm.
    """

    shape: Shape
    part: str
    timings: tuple[Timing, ...]
    ratios: dict[str, Spread]


def time_norms(shape: Shape, part: str, norms: Sequence[str], device: torch.device, compile: bool, rounds: int) -> NormTimes:
    """Time norms on random features.

    Args:
        shape: shape of the features, [B, H, W, C].
        part: `forward`, or `forward and backward`.
        norms: names of norms.
        device: the device.
        compile: whether the norms are also compiled.
        rounds: number of rounds.

    Raises:
        UserError: unknown norm.
    """
    if compile:
        forget_compiled()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(device).requires_grad_(part == BACKWARD)
    gradient = torch.randn(shape, generator=generator).to(device)
    run = partial(_backward, x=x, gradient=gradient) if part == BACKWARD else partial(_forward, x=x)
    calls: dict[str, Callable[[], object]] = {REFERENCE: partial(run, _LayerNorm(shape[-1]).to(device))}
    for name in norms:
        scheme: NormScheme = instantiate(norm_config(name))
        norm = scheme.block(shape[-1]).to(device)
        calls[name] = partial(run, norm)
        if compile:
            calls[f"{name} compiled"] = partial(run, torch.compile(norm, dynamic=False))
    timings = interleaved(calls, device, rounds)
    ratios = {name: ratio(timing, timings[REFERENCE]) for name, timing in timings.items() if name != REFERENCE}
    return NormTimes(shape, part, tuple(timings.values()), ratios)


class _LayerNorm(nn.Module):
    """F.layer_norm, with a result of the same form as that of irformer's norms."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias), None


@torch.inference_mode()
def _forward(norm: nn.Module, x: Tensor) -> None:
    norm(x)


def _backward(norm: nn.Module, x: Tensor, gradient: Tensor) -> None:
    y, scale = norm(x)
    x.grad = None
    norm.zero_grad()
    outputs = [y] if scale is None or not scale.requires_grad else [y, scale]
    torch.autograd.backward(outputs, [gradient, *(torch.ones_like(output) for output in outputs[1:])])


def norm_tables(results: Sequence[NormTimes]) -> list[ResultTable]:
    """Return one table for each part: a row for each norm, a column for each shape."""
    tables = []
    for part in dict.fromkeys(result.part for result in results):
        columns = [result for result in results if result.part == part]
        names = [timing.name for timing in columns[0].timings]
        rows: list[list[Cell]] = [[name, *(_cell(result, name) for result in columns)] for name in names]
        header = ["norm", *(f"[{', '.join(map(str, result.shape))}]" for result in columns)]
        tables.append(ResultTable(f"Norms, {part}: ms, and the ratio to {REFERENCE}", header, rows))
    return tables


def _cell(result: NormTimes, name: str) -> str:
    seconds = next(timing for timing in result.timings if timing.name == name).spread.median
    over = f" ({result.ratios[name].median:.2f})" if name in result.ratios else ""
    return f"{milliseconds(seconds).text}{over}"
