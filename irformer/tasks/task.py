"""A task: what is done to clean images, how results are measured, and on which test sets.

A task fixes everything that a published number depends on, so that a number means the same in validation, in the benchmark and in a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Interval, MinLen

from irformer.imaging.gray import GrayRule
from irformer.imaging.resize import Variant
from irformer.metrics import METRICS, Luma, Metric
from irformer.tasks.degradations import Degradation, NoiseOrder, Quality, Sigma

Padding = Literal["network", "flip_always", "reflect_min"]


@dataclass(frozen=True)
class Protocol:
    """How an image is degraded, restored and measured. What a task has no use for is None.

    Args:
        border: pixels left out on each side of the HQ image before measuring; the scale in super-resolution.
        padding: before the network: `flip_always` mirrors up to the next multiple of the window, a whole window where the size fits
            already (SwinIR's test code, behind its tables); `reflect_min` reflects where the size does not fit (HAT, BasicSR,
            Restormer); `network` is whichever of the two the network's own published numbers were measured with.
        metrics: names of metrics, the first decides which checkpoint is best.
        lr: which imresize makes LR images that are not on disk: `matlab_uint8` (published tables) or `matlab_double` (i-LN's data).
        luma: Y of the metrics on Y: `exact`, or `rounded` as MATLAB does with uint8 images (deraining); None is exact.
        noise: order of the colours in which test noise is drawn, `bgr` (SwinIR) or `rgb` (Restormer).
        gray: how a colour file becomes gray, `matlab` (Y, 16 to 235) or `opencv` (as its reader gives it, 0 to 255).
        sigma: standard deviation of the test noise in gray levels of 255.
        quality: JPEG quality of test images.
    """

    border: Annotated[int, Ge(0)]
    padding: Padding
    metrics: Annotated[tuple[str, ...], MinLen(1)]
    lr: Variant | None = None
    luma: Luma | None = None
    noise: NoiseOrder | None = None
    gray: GrayRule | None = None
    sigma: Annotated[float, Interval(ge=0, le=255)] | None = None
    quality: Annotated[int, Interval(ge=1, le=100)] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(self.metrics))
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise ValueError(f"task.protocol.{name}={value}: expected {', '.join(choices)}")

    def of(self, rules: frozenset[str]) -> "Protocol":
        """What it says of these rules; None in place of all others that may be None."""
        unused: dict[str, Any] = {rule.name: None for rule in fields(self) if rule.default is None and rule.name not in rules}
        return replace(self, **unused)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for results.json, without what the task has no use for."""
        values = {rule.name: getattr(self, rule.name) for rule in fields(self)}
        return {name: list(value) if name == "metrics" else value for name, value in values.items() if value is not None}


_CHOICES: dict[str, tuple[str, ...]] = {
    "padding": get_args(Padding),
    "lr": get_args(Variant),
    "luma": get_args(Luma),
    "noise": get_args(NoiseOrder),
    "gray": get_args(GrayRule),
}


@dataclass(frozen=True)
class Task:
    """A restoration task.

    Args:
        name: the word that selects it (`task=NAME`).
        scale: HQ pixels for each LQ pixel, 1 where the size is kept.
        channels: 3 for RGB, 1 for gray.
        degradation: clean image to degraded image.
        protocol: how results are measured; what it says of other tasks (a preset speaks of all) is dropped.
        test_sets: names of the test sets that papers report for it.
        train_gray: the ways in which colour images become gray in training, where channels is 1; one is drawn for each sample.
        sigma: level of a family of denoising tasks (`task=denoise_color task.sigma=35`), a standard deviation in gray levels of 255; name,
            degradation and protocol refer to it.
        quality: level of a family of JPEG tasks (`task=jpeg_gray task.quality=15`).
        changes: what departs from the task of that name in configs/task (`irformer.config.tasks.build_task` finds out): by dotted key, the
            value there and the value here.
        extra_metrics: metrics besides the built-in ones, by name. The protocol may name them; the others are measured after its own.
    """

    name: str
    scale: Annotated[int, Interval(ge=1, le=64)]
    channels: Literal[1, 3]
    degradation: Degradation
    protocol: Protocol
    test_sets: tuple[str, ...]
    train_gray: tuple[GrayRule, ...] = ("opencv",)
    sigma: Sigma | None = None
    quality: Quality | None = None
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict, compare=False)
    extra_metrics: Mapping[str, Metric] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"task.channels={self.channels}: expected 3 (RGB) or 1 (gray)")
        rules = frozenset(getattr(self.degradation, "rules", ())) | {"luma"}
        rules = rules - {"noise"} | {"gray"} if self.channels == 1 else rules
        object.__setattr__(self, "protocol", self.protocol.of(rules))
        self._require_one_level()
        object.__setattr__(self, "test_sets", tuple(self.test_sets))
        object.__setattr__(self, "train_gray", tuple(self.train_gray))
        self._require_metrics()

    def _require_metrics(self) -> None:
        known = {**METRICS, **self.extra_metrics}
        if unknown := [name for name in self.protocol.metrics if name not in known]:
            raise ValueError(
                f"task.protocol.metrics: unknown {', '.join(unknown)}; known: {', '.join(known)}; "
                f"+metrics.{unknown[0]}._target_=CLASS adds one of another package"
            )
        for name, metric in self.metrics.items():
            if self.channels not in metric.channels:
                key = "task.protocol.metrics" if name in self.protocol.metrics else "metrics"
                accepted = " or ".join(map(str, metric.channels))
                raise ValueError(
                    f"{key}: {name} measures images of {accepted} channel{'s' * (accepted != '1')}, and the task's have {self.channels}; "
                    "expected other metrics or another task"
                )

    @property
    def metrics(self) -> dict[str, Metric]:
        """What is measured, by name: the protocol's metrics in their order, then the extra ones."""
        known = {**METRICS, **self.extra_metrics}
        return {name: known[name] for name in (*self.protocol.metrics, *self.extra_metrics)}

    def _require_one_level(self) -> None:
        """Refuse a level that the degradation does not have, or that the protocol contradicts."""
        for key in ("sigma", "quality"):
            level = getattr(self, key)
            if level is None:
                continue
            if key not in self.degradation.rules:
                raise ValueError(f"task.{key}={level}: {type(self.degradation).__name__} has no {key}; remove the key")
            if level != (measured := getattr(self.protocol, key)):
                raise ValueError(f"task.protocol.{key}={measured} and task.{key}={level}: expected one level; give task.{key} alone")

    @property
    def label(self) -> str:
        """The name, and every change: `denoise_color_25, sigma 35`. Tables and records call the task so."""
        return ", ".join([self.name, *(f"{key.removeprefix('protocol.')} {value}" for key, (_, value) in self.changes.items())])
