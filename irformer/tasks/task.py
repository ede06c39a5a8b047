"""A task: the degradation of clean images, the evaluation protocol and the test sets.

A task fixes everything that a published number depends on, so numbers from validation, benchmarks and tables are comparable.
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
class EvaluationProtocol:
    """The rules for degrading, restoring and measuring images; rules that do not apply to a task are None.

    Args:
        border: pixels to crop on each side of the HQ image before measuring; the scale in super-resolution.
        padding: padding before the network. `flip_always` mirrors up to the next multiple of the window size, and adds a whole window if
            the size already fits (SwinIR's test code, used for its tables); `reflect_min` reflects only if needed (HAT, BasicSR,
            Restormer); `network` selects the rule of the network's own published numbers.
        metrics: names of metrics; the first selects the best checkpoint.
        lr: imresize variant for LR images that are not on disk: `matlab_uint8` (published tables) or `matlab_double` (i-LN's data).
        luma: Y channel for metrics on Y: `exact`, or `rounded` as in MATLAB with uint8 images (deraining); None means exact.
        noise: channel order in which test noise is drawn: `bgr` (SwinIR) or `rgb` (Restormer).
        gray: conversion of color files to gray: `matlab` (Y, 16 to 235) or `opencv` (the output of its reader, 0 to 255).
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

    def of(self, rules: frozenset[str]) -> "EvaluationProtocol":
        """Return a copy with only the given optional rules; all other optional rules are None."""
        unused: dict[str, Any] = {rule.name: None for rule in fields(self) if rule.default is None and rule.name not in rules}
        return replace(self, **unused)

    def as_dict(self) -> dict[str, Any]:
        """Return the rules that apply as plain values, for results.json."""
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
        name: name of the task, as in `task=NAME`.
        scale: scale factor from LQ to HQ; 1 if the size does not change.
        channels: 3 for RGB, 1 for gray.
        degradation: generates degraded images from clean ones.
        protocol: the evaluation rules; rules that do not apply to the task are dropped, because presets cover all tasks.
        test_sets: names of the test sets that papers report.
        train_gray: conversions of color images to gray in training, if `channels` is 1; one is drawn for each sample.
        sigma: level of a family of denoising tasks (`task=denoise_color task.sigma=35`), the standard deviation in gray levels of 255;
            name, degradation and protocol refer to it.
        quality: level of a family of JPEG tasks (`task=jpeg_gray task.quality=15`).
        changes: differences from the task of the same name in configs/task, computed by `irformer.config.tasks.build_task`: the value there
            and the value here, by dotted key.
        extra_metrics: additional metrics by name. The protocol may refer to them; all others are measured after the protocol's metrics.
    """

    name: str
    scale: Annotated[int, Interval(ge=1, le=64)]
    channels: Literal[1, 3]
    degradation: Degradation
    protocol: EvaluationProtocol
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
                f"add one from another package with +metrics.{unknown[0]}._target_=CLASS"
            )
        for name, metric in self.metrics.items():
            if self.channels not in metric.channels:
                key = "task.protocol.metrics" if name in self.protocol.metrics else "metrics"
                accepted = " or ".join(map(str, metric.channels))
                raise ValueError(
                    f"{key}: {name} accepts images with {accepted} channel{'s' * (accepted != '1')}, but the task's images have "
                    f"{self.channels}; choose other metrics or another task"
                )

    @property
    def metrics(self) -> dict[str, Metric]:
        """Metrics to measure, by name: the protocol's metrics in their order, then the extra ones."""
        known = {**METRICS, **self.extra_metrics}
        return {name: known[name] for name in (*self.protocol.metrics, *self.extra_metrics)}

    def _require_one_level(self) -> None:
        """Check that the degradation has the level of the task, and that the protocol has the same level."""
        for key in ("sigma", "quality"):
            level = getattr(self, key)
            if level is None:
                continue
            if key not in self.degradation.rules:
                raise ValueError(f"task.{key}={level}: {type(self.degradation).__name__} has no {key}; remove the key")
            if level != (measured := getattr(self.protocol, key)):
                raise ValueError(f"task.protocol.{key}={measured} and task.{key}={level}: expected equal levels; set only task.{key}")

    @property
    def label(self) -> str:
        """Name of the task in tables and records, including every change: `denoise_color_25, sigma 35`."""
        return ", ".join([self.name, *(f"{key.removeprefix('protocol.')} {value}" for key, (_, value) in self.changes.items())])
