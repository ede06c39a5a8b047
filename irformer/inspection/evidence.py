"""Which precision is safe for a network: runs in each of them, and a verdict by a stated rule."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from irformer.errors import UserError
from irformer.precision import LARGEST_HALF, Precision, in_precision

LEAST_HALF = 50.0
"""PSNR in dB against float32 that plain float16 must reach; 8-bit rounding has 58.9 dB."""

LEAST_SAFE = 60.0
"""PSNR in dB against float32 that float16 with a float32 stream must reach."""

MOST_OF_RANGE = 0.5
"""Share of the range of float16 that activations may use, so that other images have a factor of two."""

PRECISIONS: tuple[Precision, ...] = ("fp16", "fp16_safe", "bf16")

FP16, FP32_STREAM, BF16, FP32 = "safe in fp16", "safe with fp32 residual stream", "bf16 only", "fp32 only"
RULE = (
    f"{FP16}: no activation overflows, the largest is at most {MOST_OF_RANGE:.0%} of 65504, and the PSNR against fp32 is at least "
    f"{LEAST_HALF:g} dB on every photo; otherwise {FP32_STREAM} (precision fp16_safe): no overflow and at least {LEAST_SAFE:g} dB; "
    f"otherwise {BF16}, if its output is finite."
)


@dataclass(frozen=True)
class Evidence:
    """A run of the network on the photos in a precision.

    Args:
        precision: the precision.
        scheme: what it means, in words; None if the network does not run in it.
        psnr: PSNR in dB against float32 of each photo by name, of values in [0, 1] before rounding; nan if the output is not finite.
        values: values of the restored photos.
        non_finite: how many of them are NaN or infinite.
        overflowed_layers: number of layers with an activation that is not finite.
        first_overflow: the first of them.
        fault: why the network does not run in this precision, or None.
    """

    precision: Precision
    scheme: str | None
    psnr: Mapping[str, float]
    values: int
    non_finite: int
    overflowed_layers: int
    first_overflow: str | None
    fault: str | None = None

    @property
    def lowest_psnr(self) -> float:
        """The lowest PSNR in dB of a photo; nan if there is none."""
        return min(self.psnr.values(), key=lambda value: -math.inf if math.isnan(value) else value, default=math.nan)

    @property
    def overflows(self) -> bool:
        """Whether an activation or the output is not finite."""
        return self.overflowed_layers > 0 or self.non_finite > 0

    def reaches(self, least: float) -> bool:
        """Return whether the network runs without overflow, and with at least this PSNR in dB."""
        return self.fault is None and not self.overflows and self.lowest_psnr >= least


@dataclass(frozen=True)
class Verdict:
    """The lowest precision that is safe for a network.

    Args:
        words: one of the constants of this module.
        reason: the numbers that decided, in one sentence.
    """

    words: str
    reason: str


def gather_evidence(
    network: nn.Module, photos: Mapping[str, Tensor], stage: Callable[[str], object]
) -> tuple[dict[str, float], list[Evidence]]:
    """Run a network on photos in float32 and in the precisions that `judge` compares.

    Args:
        network: see `irformer.models.interface.Network`.
        photos: images [1, C, h, w] in [0, 1] by name, on the network's device.
        stage: called with each precision before its run.

    Returns:
        The largest absolute activation of each layer in float32, in the order of computation, and the evidence for each precision.
    """
    stage("fp32")
    exact = in_precision(network, "fp32")
    expected = {name: _restored(exact.network, photo) for name, photo in photos.items()}
    largest = dict(exact.record().largest)
    del exact
    evidence = []
    for precision in PRECISIONS:
        stage(precision)
        evidence.append(_evidence(network, precision, photos, expected))
    return largest, evidence


def judge(largest: float, evidence: Sequence[Evidence]) -> Verdict:
    """Return the verdict on a network by `RULE`.

    Args:
        largest: the largest absolute activation in float32.
        evidence: for fp16, fp16_safe and bf16.
    """
    runs: dict[str, Evidence] = {run.precision: run for run in evidence}
    half, safe, wide = runs["fp16"], runs["fp16_safe"], runs["bf16"]
    share = largest / LARGEST_HALF
    if half.reaches(LEAST_HALF) and share <= MOST_OF_RANGE:
        return Verdict(FP16, f"activations use {percent(share)} of the range of float16, and {_agreement(half)}")
    against = _against_half(half, largest, share)
    if safe.reaches(LEAST_SAFE):
        return Verdict(FP32_STREAM, f"{against}; {_agreement(safe)}")
    against = f"{against}; fp16_safe {_failure(safe)}"
    if wide.fault is None and not wide.overflows:
        return Verdict(BF16, f"{against}; {_agreement(wide)}")
    return Verdict(FP32, f"{against}; bf16 {_failure(wide)}")


def _against_half(half: Evidence, largest: float, share: float) -> str:
    if half.reaches(LEAST_HALF):
        return f"the largest activation, {largest:,.0f}, uses {percent(share)} of the range of float16, which other images may exceed"
    return f"fp16 {_failure(half)}"


def _failure(run: Evidence) -> str:
    if run.fault is not None:
        return f"does not run ({run.fault})"
    if run.overflows:
        layers = "1 layer" if run.overflowed_layers == 1 else f"{run.overflowed_layers} layers"
        where = f", first in {run.first_overflow}" if run.first_overflow is not None else ""
        return f"overflows in {layers}{where}, and {run.non_finite:,} of {run.values:,} restored values are not finite"
    return f"has only {run.lowest_psnr:.1f} dB against fp32"


def _agreement(run: Evidence) -> str:
    return f"{run.precision} has {run.lowest_psnr:.1f} dB against fp32"


def percent(share: float) -> str:
    """Return a share in percent, with three digits."""
    return f"{float(f'{100 * share:.3g}'):,.12g} %"


def _evidence(network: nn.Module, precision: Precision, photos: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Evidence:
    try:
        reduced = in_precision(network, precision)
        psnr = {name: _psnr(_restored(reduced.network, photo), expected[name]) for name, photo in photos.items()}
    except (UserError, RuntimeError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        return Evidence(precision, None, {}, 0, 0, 0, None, fault=line)
    record = reduced.record()
    overflowed = sum(not math.isfinite(value) for value in record.largest.values())
    return Evidence(precision, record.scheme, psnr, record.values, record.non_finite, overflowed, record.first_overflow)


def _restored(network: nn.Module, photo: Tensor) -> Tensor:
    with torch.no_grad():
        out: Any = network(photo)
    return out.cpu()


def _psnr(found: Tensor, expected: Tensor) -> float:
    """Return the PSNR in dB of images in [0, 1]: infinite if they are equal, nan if one is not finite."""
    error = float((found.double() - expected.double()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error) if math.isfinite(error) else math.nan
