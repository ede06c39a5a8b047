"""Read finished runs and group them into arms: compare configurations and derive short labels from their differences."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from irformer.config.saved import read_saved_config
from irformer.errors import UserError
from irformer.evaluation.results import read_results
from irformer.schema.roles import described

Config = dict[str, Any]  # flat, by dotted key


def flat_config(config: DictConfig) -> Config:
    """Return the values that affect a run's result by dotted key; references (`${optim.lr}`) are kept, so that each choice counts once."""
    flat: Config = {}

    def visit(node: Any, prefix: str) -> None:
        for word, value in node.items():
            name = f"{prefix}{word}"
            if not described(name).result:
                continue
            if isinstance(value, dict) and value:
                visit(value, f"{name}.")
            elif value != {}:  # an empty section equals a missing one, such as `metrics` in runs of older versions
                flat[name] = value

    # A round trip through YAML gives the same types as in a saved configuration.
    visit(OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(config)), resolve=False), "")
    return flat


def read_config(file: Path) -> DictConfig:
    """Read a run's config.yaml for comparison; nothing is built from it, so it may name untrusted classes.

    Raises:
        UserError: the file cannot be read, or is not plain data.
    """
    return read_saved_config(file)


def differing_keys(first: Config, second: Config) -> list[str]:
    """Return the keys whose values differ, in the order of the first configuration; 1 equals 1.0, but neither true nor "1"."""
    one, other = ({key: _exact(value) for key, value in config.items()} for config in (first, second))
    return [key for key in dict.fromkeys([*first, *second]) if one.get(key) != other.get(key)]


def same_config(first: Config, second: Config) -> bool:
    """Return whether two configurations are the same experiment."""
    return _exact(first) == _exact(second)


def _exact(value: Any) -> str:
    """Return a text that is the same for equal values and different for all others."""

    def floats(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): floats(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [floats(inner) for inner in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else value

    return json.dumps(floats(value), sort_keys=True, default=str)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Args:
        folder: the run's folder.
        seed: the run's seed.
        config: the configuration without the seed.
        record: the content of its results.json.
    """

    folder: Path
    seed: int
    config: Config
    record: dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """Runs that differ only in the seed.

    Args:
        label: a label that distinguishes the arm from the others, such as `norm=iln`.
        config: the configuration of its runs without the seed.
        runs: runs by seed, in ascending order.
    """

    label: str
    config: Config
    runs: dict[int, FinishedRun]


@dataclass(frozen=True)
class FoundRuns:
    """The runs in some folders and their subfolders, sorted by path.

    Args:
        finished: runs whose config.yaml and results.json can be read.
        unfinished: folders of runs without results.json.
        broken: for each run whose files cannot be read, one line that names the file and the reason.
    """

    finished: list[FinishedRun]
    unfinished: list[Path]
    broken: list[str]


def read_runs(folders: Sequence[Path]) -> FoundRuns:
    """Read all runs in some folders and their subfolders, regardless of how they were launched.

    Raises:
        UserError: a folder does not exist.
    """
    found = FoundRuns([], [], [])
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected the folder of a sweep, a run or a benchmark")
        for file in sorted(folder.rglob("config.yaml")):
            if file.resolve() in seen:
                continue
            seen.add(file.resolve())
            results = file.with_name("results.json")
            if not results.is_file():
                found.unfinished.append(file.parent)
                continue
            try:
                found.finished.append(_finished_run(file, results))
            except UserError as error:
                found.broken.append(str(error))
    return found


def _finished_run(config_file: Path, results: Path) -> FinishedRun:
    try:
        config = flat_config(read_config(config_file))
    except (OmegaConfBaseException, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{config_file}: cannot be read ({reason}); expected the saved configuration of a run") from None
    seed = config.pop("seed", None)
    if not isinstance(seed, int):
        raise UserError(f"{config_file}: seed is {seed}, expected a whole number, as in the saved configuration of a run")
    return FinishedRun(config_file.parent, seed, config, read_results(results))


def group_arms(runs: Sequence[FinishedRun]) -> list[Arm]:
    """Group runs into arms, in the order of their first runs.

    Raises:
        UserError: two runs have the same configuration and seed.
    """
    groups: dict[str, dict[int, FinishedRun]] = {}
    for run in runs:
        seeds = groups.setdefault(_exact(run.config), {})
        if run.seed in seeds:
            raise UserError(
                f"{seeds[run.seed].folder} and {run.folder} have the same configuration and seed {run.seed}: "
                "give folders that contain only one of them"
            )
        seeds[run.seed] = run
    members = list(groups.values())
    configs = [next(iter(seeds.values())).config for seeds in members]
    labels = arm_labels(configs)
    return [Arm(label, config, dict(sorted(seeds.items()))) for label, config, seeds in zip(labels, configs, members, strict=True)]


def arm_labels(configs: Sequence[Config]) -> list[str]:
    """Return a minimal label for each of several different configurations, such that all labels differ.

    Groups with different names are labeled by name (`norm=iln`); their other differences appear only if the names alone are ambiguous. The
    label of a single configuration consists of the names of its task, model and norm.
    """
    if len(configs) == 1:
        parts = [str(configs[0][f"{group}.name"]) for group in ("task", "model", "norm") if f"{group}.name" in configs[0]]
        return [" ".join(parts) or "all runs"]
    differing = _differing_in_any(configs)
    names = [key for key in differing if key.count(".") == 1 and key.endswith(".name")]
    named = {key.partition(".")[0] for key in names}
    keys = [key for key in differing if key in names or key.partition(".")[0] not in named]
    shown = [list(keys) for _ in configs]
    labels = [_describe(config, keys) for config in configs]
    for label in set(labels):
        alike = [i for i, other in enumerate(labels) if other == label]
        if len(alike) > 1:
            further = [key for key in _differing_in_any([configs[i] for i in alike]) if key not in keys]
            for i in alike:
                shown[i] += further
    labels = [_describe(config, keys) for config, keys in zip(configs, shown, strict=True)]
    if len(set(labels)) < len(labels):  # different values with the same text: 1 and "1", "a b" and "ab"
        labels = [
            " ".join(f"{key}={_exact(config[key]) if key in config else '-'}" for key in keys)
            for config, keys in zip(configs, shown, strict=True)
        ]
    assert len(set(labels)) == len(labels), "different configurations must have different labels"
    return labels


def _differing_in_any(configs: Sequence[Config]) -> list[str]:
    differing = [key for config in configs[1:] for key in differing_keys(configs[0], config)]
    order = {key: i for i, key in enumerate(dict.fromkeys(key for config in configs for key in config))}
    return sorted(set(differing), key=order.__getitem__)


def _describe(config: Config, keys: Sequence[str]) -> str:
    parts = []
    for key in keys:
        value = str(config.get(key, "-")).replace(" ", "")
        parts.append(f"{key.removesuffix('.name') if key.count('.') == 1 else key}={value}")
    return " ".join(parts)
