"""What a benchmark evaluates: networks from weights files and runs, and baselines, each with a name of its own."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from irformer.core.files import sha256
from irformer.core.trust import Trust
from irformer.errors import UserError
from irformer.weights.bundled import bundled_name
from irformer.weights.checkpoints import load_checkpoint
from irformer.weights.hub import hub_address

BASELINES = ("bicubic", "degraded")


@dataclass(frozen=True)
class Subject:
    """A network or a baseline.

    Args:
        given: the path or the baseline as the user gave it.
        label: its name in tables.
        short: its name in files and folders.
        network: the network in evaluation mode; None for a baseline.
        sha256: checksum of the weights file; None for a baseline.
        overrides: changes to the model configuration in the weights file.
        task: name of the task that it was trained for, or None if it is unknown.
        task_config: the recorded configuration of this task, as plain values, or None.
        file: the weights file, for messages.
    """

    given: str
    label: str
    short: str
    network: nn.Module | None = None
    sha256: str | None = None
    overrides: Mapping[str, Any] | None = None
    task: str | None = None
    task_config: Mapping[str, Any] | None = None
    file: Path | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What distinguishes its results from those of others, as recorded in results.json."""
        return {"sha256": self.sha256, "model_overrides": dict(self.overrides or {})}


def load_subjects(
    given: Mapping[str, str | None], overrides: Mapping[str, Any], trust: Trust, device: torch.device | str = "cpu"
) -> list[Subject]:
    """Load networks and baselines.

    Args:
        given: labels in tables by path or baseline; None takes the label from the network.
        overrides: changes to the model configuration of every network.
        trust: which classes weights files may name.
        device: device for the networks.

    Raises:
        UserError: a file cannot be loaded, or two of them have the same weights.
    """
    subjects = [_load(path, label, overrides, trust, device) for path, label in given.items()]
    files: dict[str, str] = {}
    for subject in subjects:
        if subject.sha256 is not None:
            if subject.sha256 in files:
                raise UserError(
                    f"checkpoint: {files[subject.sha256]} and {subject.given} are the same weights, expected each once: remove one of them"
                )
            files[subject.sha256] = subject.given
    return _with_distinct_names(subjects)


def _load(given: str, label: str | None, overrides: Mapping[str, Any], trust: Trust, device: torch.device | str) -> Subject:
    if given in BASELINES:
        return Subject(given, label or given, given)
    loaded = load_checkpoint(Path(given), overrides, trust=trust)
    file = loaded.path
    return Subject(
        given,
        label or loaded.title,
        _short_name(given, file),
        loaded.network.to(device),
        sha256(file),
        overrides,
        loaded.task,
        loaded.task_config,
        file,
    )


def _short_name(given: str, file: Path) -> str:
    """Return the name of a run's folder, of a repository, of weights in the package, or of a weights file without its suffix."""
    address = hub_address(given)
    if address is not None:
        return address.repo.rpartition("/")[2]
    return Path(given).resolve().name if Path(given).is_dir() else bundled_name(file) or file.stem


def _with_distinct_names(subjects: Sequence[Subject]) -> list[Subject]:
    """Extend the labels and short names that several subjects share."""
    labels, shorts = Counter(subject.label for subject in subjects), Counter(subject.short for subject in subjects)
    distinct = []
    for subject in subjects:
        label = subject.label if labels[subject.label] == 1 else f"{subject.label} ({subject.given})"
        short = subject.short if shorts[subject.short] == 1 else f"{subject.short}-{(subject.sha256 or '')[:8]}"
        distinct.append(replace(subject, label=label, short=short))
    return distinct
