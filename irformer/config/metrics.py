"""Building of metrics from the `metrics` section of a configuration, with checks before the first step."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from irformer.config.compose import instantiate
from irformer.errors import UserError
from irformer.metrics import METRICS, Metric, MetricUnavailableError

WEIGHTS = "weights"
"""The key in `metrics` that is no metric: the folder of the weights that some metrics need."""

_log = logging.getLogger(__name__)

_EXPECTED = "expected a subclass of irformer.metrics.Metric"


def build_metrics(section: DictConfig | Mapping[str, Any] | None, channels: int) -> dict[str, Metric]:
    """Build the metrics in the `metrics` section of a configuration, and test each on a small image.

    Args:
        section: nodes with `_target_`, by metric name; null removes a metric. A metric that lacks a package or a weights file is left out
            with a warning.
        channels: channels of the task's images, 3 or 1. A metric that does not accept them is built but not tested.

    Raises:
        UserError: a name is taken or invalid, or a class cannot be built, does not meet the contract or cannot measure an image.
    """
    nodes: Any = OmegaConf.to_container(section, resolve=True) if isinstance(section, DictConfig) else dict(section or {})
    metrics = {}
    for name, node in nodes.items():
        if node is None or name == WEIGHTS:
            continue
        key = f"metrics.{name}"
        if name in METRICS:
            raise UserError(f"{key}: is the name of a built-in metric, expected another name")
        if not isinstance(name, str) or not name.isidentifier():
            raise UserError(f"{key}: expected a name of letters, digits and _")
        if not isinstance(node, dict):
            raise UserError(f"{key}={node}: expected a _target_ class and its arguments")
        with torch.random.fork_rng(devices=[]):  # a metric that contains a network must not change the weights of a run
            try:
                metrics[name] = metric = instantiate(node)
            except UserError as error:
                if isinstance(_first_cause(error), MetricUnavailableError):
                    _log.warning("%s is left out: %s", name, _first_cause(error))
                    continue
                raise UserError(f"{key}: {error}; {_EXPECTED}") from None
            _require_contract(f"{key}: {node['_target_']}", metric)
            if channels in metric.channels:
                _require_measurement(f"{key}: {node['_target_']}", metric, channels)
    return metrics


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _require_contract(label: str, metric: Any) -> None:
    """Check the class of a metric and its attributes."""
    if not isinstance(metric, Metric):
        raise UserError(f"{label} is not a metric; {_EXPECTED} with higher_is_better and __call__(restored, truth)")
    if not hasattr(metric, "higher_is_better"):
        raise UserError(f"{label} has no higher_is_better; expected True or False as an attribute of the class")
    for name, (is_valid, expected) in _CONTRACT.items():
        value = getattr(metric, name)
        if not is_valid(value):
            raise UserError(f"{label}: {name} is {value!r}, expected {expected}")


def _is_whole(value: Any, low: int, high: float = float("inf")) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


_CONTRACT: dict[str, tuple[Any, str]] = {
    "higher_is_better": (lambda value: isinstance(value, bool), "True or False"),
    "digits": (lambda value: _is_whole(value, 0, 10), "a whole number from 0 to 10"),
    "unit": (lambda value: isinstance(value, str), "text"),
    "channels": (
        lambda value: isinstance(value, tuple | list) and len(value) > 0 and all(channels in (1, 3) for channels in value),
        "(3,), (1,) or (1, 3)",
    ),
    "smallest_side": (lambda value: _is_whole(value, 1), "a whole number, 1 or more"),
    "on_y": (lambda value: isinstance(value, bool), "True or False"),
}


def _require_measurement(label: str, metric: Metric, channels: int) -> None:
    """Measure the smallest image that a metric accepts, to detect errors before the first validation."""
    side = metric.smallest_side
    truth = (np.arange(side * side * channels) * 37 % 251).astype(np.uint8).reshape(side, side, channels)
    images: list[Any] = [truth // 2, truth]
    if metric.on_y:
        images = [image[..., :1].astype(np.float64) for image in images]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            value = metric(*images)
    except Exception as error:  # third-party code may raise anything
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(
            f"{label} cannot measure an image of {side}x{side} pixels with {channels} channel{'s' * (channels > 1)} "
            f"({type(error).__name__}: {reason}); if it needs a larger one, set its smallest_side"
        ) from error
    try:
        float(value)
    except (TypeError, ValueError):
        raise UserError(f"{label} returns a {type(value).__name__}, expected a number") from None
