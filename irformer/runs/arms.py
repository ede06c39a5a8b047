"""Finished runs of a folder, and the arms that they form: what is the same in two configurations, what differs, and a short name for it."""

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

Config = dict[str, Any]  # flat: values by dotted key


def flat_config(config: DictConfig) -> Config:
    """What decides a run's result, values by dotted key; references (`${optim.lr}`) stay as they are, so that each choice counts once."""
    flat: Config = {}

    def visit(node: Any, prefix: str) -> None:
        for word, value in node.items():
            name = f"{prefix}{word}"
            if not described(name).result:
                continue
            if isinstance(value, dict) and value:
                visit(value, f"{name}.")
            elif value != {}:  # an empty part says no more than a part that is missing, as `metrics` in runs of older versions
                flat[name] = value

    # Through YAML, as a saved configuration has gone.
    visit(OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(config)), resolve=False), "")
    return flat


def read_config(file: Path) -> DictConfig:
    """A run's config.yaml, to be compared: nothing is built from it, so that it may name classes that are not trusted.

    Raises:
        UserError: it cannot be read, or is no plain data.
    """
    return read_saved_config(file)


def differing_keys(first: Config, second: Config) -> list[str]:
    """The keys whose values differ, in the order of the first configuration; 1 and 1.0 are equal, 1 and true or "1" are not."""
    one, other = ({key: _exact(value) for key, value in config.items()} for config in (first, second))
    return [key for key in dict.fromkeys([*first, *second]) if one.get(key) != other.get(key)]


def _exact(value: Any) -> str:
    """A value as text that equal values share, and no others."""

    def floats(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): floats(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [floats(inner) for inner in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else value

    return json.dumps(floats(value), sort_keys=True, default=str)


@dataclass(frozen=True)
class FinishedRun:
    """A run that has come to its end.

    Args:
        folder: of the run.
        seed: of its configuration.
        config: its configuration without the seed.
        record: what its results.json holds.
    """

    folder: Path
    seed: int
    config: Config
    record: dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """Runs that are equal in everything but the seed.

    Args:
        label: what sets it apart from the other arms, as `norm=iln`.
        config: of its runs, without the seed.
        runs: by seed, in ascending order.
    """

    label: str
    config: Config
    runs: dict[int, FinishedRun]


@dataclass(frozen=True)
class FoundRuns:
    """The runs at and below some folders, in the order of their paths.

    Args:
        finished: those with a config.yaml and a results.json that can be read.
        unfinished: folders of those without results.json.
        broken: for each of those whose files cannot be read, one line that names the file and says why.
    """

    finished: list[FinishedRun]
    unfinished: list[Path]
    broken: list[str]


def read_runs(folders: Sequence[Path]) -> FoundRuns:
    """Read all runs at and below some folders, whatever launched them.

    Raises:
        UserError: there is no such folder.
    """
    found = FoundRuns([], [], [])
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected that of a sweep or a run")
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
        raise UserError(f"{config_file}: cannot be read ({reason}); expected the configuration that a run has saved") from None
    seed = config.pop("seed", None)
    if not isinstance(seed, int):
        raise UserError(f"{config_file}: seed is {seed}, expected a whole number, as in the configuration that a run has saved")
    return FinishedRun(config_file.parent, seed, config, read_results(results))


def group_arms(runs: Sequence[FinishedRun]) -> list[Arm]:
    """The arms that runs form, in the order of their first runs.

    Raises:
        UserError: two runs share configuration and seed.
    """
    groups: dict[str, dict[int, FinishedRun]] = {}
    for run in runs:
        seeds = groups.setdefault(_exact(run.config), {})
        if run.seed in seeds:
            raise UserError(
                f"{seeds[run.seed].folder} and {run.folder} are runs of the same configuration and seed {run.seed}: "
                "name folders that hold only one of them"
            )
        seeds[run.seed] = run
    members = list(groups.values())
    configs = [next(iter(seeds.values())).config for seeds in members]
    labels = arm_labels(configs)
    return [Arm(label, config, dict(sorted(seeds.items()))) for label, config, seeds in zip(labels, configs, members, strict=True)]


def arm_labels(configs: Sequence[Config]) -> list[str]:
    """A short label for each of several different configurations: what sets it apart, and no more.

    A group that was chosen by a word (`norm=iln`) is called by it; what else it differs in is said only where the word alone would
    not tell two apart. Where there is one configuration alone, its label is made of the names in it.
    """
    if len(configs) == 1:
        named = [str(configs[0][f"{group}.name"]) for group in ("task", "model", "norm") if f"{group}.name" in configs[0]]
        return [" ".join(named) or "all runs"]
    differing = _differing_in_any(configs)
    words = [key for key in differing if key.count(".") == 1 and key.endswith(".name")]
    chosen = {key.partition(".")[0] for key in words}
    keys = [key for key in differing if key in words or key.partition(".")[0] not in chosen]
    shown = [list(keys) for _ in configs]
    labels = [_describe(config, keys) for config in configs]
    for label in set(labels):
        alike = [i for i, other in enumerate(labels) if other == label]
        if len(alike) > 1:
            further = [key for key in _differing_in_any([configs[i] for i in alike]) if key not in keys]
            for i in alike:
                shown[i] += further
    labels = [_describe(config, keys) for config, keys in zip(configs, shown, strict=True)]
    if len(set(labels)) < len(labels):  # values that read the same: 1 and "1", "a b" and "ab"
        labels = [
            " ".join(f"{key}={_exact(config[key]) if key in config else '-'}" for key in keys)
            for config, keys in zip(configs, shown, strict=True)
        ]
    assert len(set(labels)) == len(labels), "configurations that differ have labels that differ"
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
