"""Convert between weights files and networks: irformer's own files, official ones, and those of other networks that spandrel supports.

irformer's own format is safetensors with the whole configuration in the metadata, so that a single file rebuilds the network.
"""

import json
import logging
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from irformer.core.files import write_atomically
from irformer.core.trust import Trust, shortened, targets
from irformer.errors import UserError, naming
from irformer.models.frame import ENLARGING, UPSAMPLER
from irformer.models.interface import require_network
from irformer.schema.roles import described
from irformer.weights.building import build, build_on_meta, first_line
from irformer.weights.bundled import bundled_file, require_bundled_name
from irformer.weights.community import load_community, recorded_architecture
from irformer.weights.formats import describe, our_names, recognize
from irformer.weights.hub import fetch_weights, hub_address
from irformer.weights.overrides import override_model
from irformer.weights.reading import RECORD, WeightFile, first_few, read_weight_file, require_finite
from irformer.weights.records import parse_record

BEST = Path("checkpoints/best.safetensors")
LAST = Path("checkpoints/last.ckpt")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A network loaded from a file, in evaluation mode, with the metadata of the file.

    Args:
        path: the file.
        network: the network with its weights loaded.
        model: the `model` part of its configuration, including the norm; for networks built by spandrel, `name` and `spandrel` (the
            architecture).
        task: name of the task that it was trained for, or None if the file does not contain it.
        step: optimizer steps that it was trained for, or None.
        task_config: the `task` part of the training configuration as plain values, or None if the file does not contain it.
    """

    path: Path
    network: nn.Module
    model: dict[str, Any]
    task: str | None
    step: int | None
    task_config: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        """A short description of the network, as used in tables."""
        norm = f", norm {self.model['norm']['name']}" if isinstance(self.model.get("norm"), dict) else ""
        return f"{self.model['name']}{norm}, {self.path.name if self.step is None else f'step {self.step}'}"


def network_record(
    model: Mapping[str, Any],
    task: str | None,
    step: int | None,
    metrics: Mapping[str, float],
    task_config: Mapping[str, Any] | None = None,
) -> str:
    """Describe a network in JSON, with everything needed to rebuild and evaluate it.

    Args:
        model: the `model` part of the configuration, as plain values; keys that only say how it is trained are left out of the record.
        task: name of the task, or None.
        step: optimizer steps so far, or None.
        metrics: metrics of the validation after which the weights are saved.
        task_config: the resolved `task` part of the configuration, as plain values; None leaves it out of the record.
    """
    described_model = {key: value for key, value in model.items() if described(f"model.{key}").result}
    record = {"model": described_model, "task": task, "step": step, "validation": dict(metrics)}
    return json.dumps(record if task_config is None else record | {"task_config": dict(task_config)})


def save_network(
    path: Path,
    network: nn.Module,
    model: Mapping[str, Any],
    task: str | None,
    step: int | None,
    metrics: Mapping[str, float],
    task_config: Mapping[str, Any] | None = None,
) -> None:
    """Write a network and its configuration as safetensors, through a temporary file.

    Args:
        path: the file, ending in .safetensors.
        network: the network whose parameters and persistent buffers are written.
        model: the `model` part of the configuration, as plain values.
        task: name of the task, or None.
        step: optimizer steps so far, or None.
        metrics: metrics of the validation after which the network is saved.
        task_config: the resolved `task` part of the configuration, as plain values, or None.
    """
    save_weights(path, network.state_dict(), network_record(model, task, step, metrics, task_config))


def save_weights(path: Path, weights: Mapping[str, Tensor], record: str) -> None:
    """Write weights as safetensors with a record (see `network_record`), through a temporary file."""
    own = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    write_atomically(path, lambda temporary: safetensors.torch.save_file(own, temporary, metadata={RECORD: record}))


def saved_validation(path: Path) -> dict[str, float]:
    """Return the validation metrics stored in a .safetensors file written by irformer, by name."""
    with naming(f"{path}: "), safetensors.safe_open(path, framework="pt") as opened:
        return parse_record((opened.metadata() or {}).get(RECORD))["validation"]


def load_checkpoint(path: Path | str, overrides: Mapping[str, Any] | None = None, trust: Trust | None = None) -> Checkpoint:
    """Load a network from a run's folder or a weights file: irformer's, official, or of any network that spandrel supports.

    The network in an official file is recognized by the names and shapes of its weights (`irformer.weights.formats`) and logged in one
    line. No file can run code: a record may only name networks and norms of irformer, and classes of packages that the user trusts.

    Args:
        path: a run's folder (its best weights), a .safetensors, .pth, .pt or .ckpt file, the name of weights in the package (see
            `irformer.weights.bundled`), or hf://OWNER/REPO[@REVISION][/FILE] (see `irformer.weights.hub`).
        overrides: changes to the `model` part of the configuration, by dotted keys, for settings that the weights do not determine:
            `{"pixel_range": 255.0}`, `{"norm.standardize_input": False}`.
        trust: which classes the file may name; None reads the environment variable IRFORMER_TRUST.

    Raises:
        UserError: the file is missing or damaged, would run code, or contains weights that are not finite or a network that is unknown or
            incomplete.
    """
    file = read_weight_file(_file_of(path))
    with naming(f"{file.path}: "):
        trust = trust or Trust()
        require_finite(file.weights)
        model = _model_of(file, trust)
        if model is None:
            return _load_community(file, overrides or {})
        model = override_model(model, overrides or {})
        network = _build(model, _weights_of(file), trust.with_names(_named_by_user(model, overrides or {})))
    load_weights(network, _weights_of(file), file.path)
    if file.record is None:
        parameters = sum(p.numel() for p in network.parameters())
        under = f" under {file.wrapping}" if file.wrapping else ""
        _log.info("%s: official weights%s of %s, %s parameters", file.path, under, describe(model), f"{parameters:,}")
        return Checkpoint(file.path, network, model, None, None)
    return Checkpoint(file.path, network, model, file.record["task"], file.record["step"], file.record["task_config"])


def _build(model: Mapping[str, Any], weights: Mapping[str, Tensor], trust: Trust) -> nn.Module:
    """Build the network of a configuration that was read from a file."""
    _require_buildable(model, weights, trust)
    node = {key: value for key, value in model.items() if key != "name"}
    network = build(node, trust, "network")
    require_network(network, shortened(node["_target_"]))
    derived = [name for name, value in network.named_buffers() if not value.isfinite().all()]
    if derived:
        raise UserError(f"its configuration makes {first_few(derived)} infinite or NaN; expected a pixel_range above 0")
    return network.eval()


def require_rebuildable(network: nn.Module, model: Mapping[str, Any], task: Mapping[str, Any], trust: Trust) -> None:
    """Check before training that a network with classes of other packages can be rebuilt from the files that the run will write.

    Args:
        network: as it was built from the configuration.
        model: the `model` part of the configuration, plain values.
        task: the `task` part, plain values.
        trust: which classes the run's files may name.

    Raises:
        UserError: its description cannot be written or read, or does not give the same network again.
    """
    with naming("the weights of this run could not be loaded again: "), torch.random.fork_rng(devices=[]):
        try:
            record = parse_record(network_record(model, task.get("name"), 0, {}, task))
        except (TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"its configuration cannot be written as JSON ({first_line(error)}); expected numbers and text") from None
        trust.require(record["task_config"], "task")
        weights = network.state_dict()
        require_finite(weights)
        again = _build(_checked_model(record["model"], trust), weights, trust)
        _require_fit(again, weights)


def _require_buildable(model: Mapping[str, Any], weights: Mapping[str, Tensor], trust: Trust) -> None:
    """Compare a network with the file's weights before it takes memory; other packages' classes may not support the meta device."""
    node = {key: value for key, value in model.items() if key != "name"}
    if all(trust.is_builtin(target, "network") for target in targets(node)):
        _require_fit(build_on_meta(node, trust, len(weights)), weights)


def _named_by_user(model: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[str]:
    """Return the classes in a changed configuration that the user's overrides name."""
    keys = {key.split(".")[0] for key in overrides}
    return [str(target) for key in keys for target in targets(model.get(key))]


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Load weights into a network strictly.

    Raises:
        UserError: the weights do not match the network; the message lists the first differences.
    """
    with naming(f"{file}: "):
        _require_fit(network, weights)
    network.load_state_dict(weights)


def _require_fit(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    faults = _faults(network, weights)
    if faults:
        raise UserError(f"its weights do not match the configured {type(network).__name__}: {_listed(faults)}")


@dataclass(frozen=True)
class Transfer:
    """Which parameters of a network were loaded from a file when training started, and which were not.

    Args:
        source: the file, and a description of its contents.
        loaded: number of parameters of each tensor loaded from the file, by name.
        initialized: the same for the tensors that keep their random initialization.
    """

    source: str
    loaded: dict[str, int]
    initialized: dict[str, int]

    def __str__(self) -> str:
        loaded = f"{self.source}: loaded {sum(self.loaded.values()):,} parameters in {len(self.loaded)} tensors"
        if not self.initialized:
            return f"{loaded}, the whole network"
        modules = ", ".join(dict.fromkeys(name.partition(".")[0] for name in self.initialized))
        count = f"{sum(self.initialized.values()):,} parameters in {len(self.initialized)} tensors"
        return f"{loaded}; randomly initialized {count} ({modules})"


def transfer_weights(network: nn.Module, path: Path, trust: Trust | None = None) -> Transfer:
    """Initialize a network from a file that may be of another scale: load every tensor whose name and shape match.

    The whole body must match; the upsampler may stay randomly initialized. Its upsampling convolutions are loaded only if all of them
    match, because a single convolution trained to upsample alone is no good initialization for one of two.

    Args:
        network: the network to load weights into.
        path: a run's folder or a file, as for `load_checkpoint`.
        trust: which classes the file may name; None reads the environment variable IRFORMER_TRUST.

    Raises:
        UserError: the file cannot be read, or contains weights that are not finite or do not match the network; the message lists the
            first differences.
    """
    with naming("init_from="):
        file = read_weight_file(_file_of(path))
        with naming(f"{file.path}: "):
            weights = _weights_of(file)
            require_finite(weights)
            if file.record is not None:
                trust = trust or Trust()
                model = _model_of(file, trust)
                if model is not None:
                    _require_buildable(model, weights, trust)
    own = network.state_dict()
    fitting = {name for name, value in own.items() if name in weights and weights[name].shape == value.shape}
    enlarging = {name for name in [*own, *weights] if name.partition(".")[0] in ENLARGING}
    if not enlarging & set(own) <= fitting:
        fitting -= enlarging
    faults = {
        fault: body
        for fault, names in _faults(network, weights).items()
        if (body := [name for name in names if name.partition(".")[0] not in UPSAMPLER])
    }
    if faults:
        raise UserError(
            f"init_from={file.path}: found {_described(file)}, which do not match the configured {type(network).__name__} "
            f"(only its upsampler may differ): {_listed(faults)}"
        )
    network.load_state_dict({name: weights[name] for name in fitting}, strict=False)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    loaded = {name: size for name, size in sizes.items() if name in fitting}
    initialized = {name: size for name, size in sizes.items() if name not in fitting}
    return Transfer(f"{file.path}, {_described(file)}", loaded, initialized)


def _file_of(path: Path | str) -> Path:
    """Return the file at a path: the best weights of a run's folder, bundled weights by their name, a download, or the path itself."""
    address = hub_address(path)
    if address is not None:
        return fetch_weights(address)
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # reading the file reports the error, unless the path may have been meant as a name
        require_bundled_name(path)
        return bundled_file(str(path)) or path
    if not stat.S_ISDIR(mode):
        return path
    if not (path / BEST).exists():
        raise UserError(f"{path}: no {BEST} in this folder; a run writes it at its first validation, before that use {LAST}")
    return path / BEST


def _model_of(file: WeightFile, trust: Trust) -> dict[str, Any] | None:
    """Return the configuration of the network in a file; None if irformer has no such network."""
    if file.record is None:
        return recognize(file.weights)
    model = file.record["model"]
    if recorded_architecture(model) is not None:
        return None
    return _checked_model(model, trust)


def _checked_model(model: dict[str, Any], trust: Trust) -> dict[str, Any]:
    """The description of a network, if all of its classes are trusted and nothing is missing."""
    trust.require(model, "network")
    missing = [key for key in ("_target_", "name") if key not in model]
    if missing:
        raise UserError(f"its configuration lacks {', '.join(missing)}; expected the `model` part of a run's config.yaml")
    names = {"name": model["name"]}
    target, norm = model["_target_"], model.get("norm")
    own = trust.is_builtin(target, "network") and target != "irformer.models.External"
    if own or isinstance(norm, dict):  # a network of another project may take none
        names["norm.name"] = norm.get("name") if isinstance(norm, dict) else None
    for key, name in names.items():
        if not isinstance(name, str):
            raise UserError(f"{key}={shortened(name)} in its record: expected a name")
    return model


def _weights_of(file: WeightFile) -> dict[str, Tensor]:
    return our_names(file.weights) if file.record is None else file.weights


def _described(file: WeightFile) -> str:
    """Describe the weights in a file, as far as the file identifies them."""
    record = file.record
    if record is not None:
        name, norm = record["model"].get("name"), record["model"].get("norm")
        if recorded_architecture(record["model"]) is not None:
            return f"weights of {shortened(name)}, built by spandrel"
        norm_name = f", norm {shortened(norm.get('name'))}" if isinstance(norm, dict) else ""
        return f"weights of {shortened(name)}{norm_name}, {record['task'] or 'unknown task'}"
    try:
        model = recognize(file.weights)
    except UserError:
        model = None
    return f"official weights of {describe(model)}" if model is not None else "weights of another network"


def _load_community(file: WeightFile, overrides: Mapping[str, Any]) -> Checkpoint:
    record = file.record or {"model": {}, "task": None, "step": None, "task_config": None}
    found = load_community(file.weights, recorded_architecture(record["model"]))
    if found is None:
        raise UserError(
            f"expected the weights of SwinIR, HAT, DRCT, Restormer or a network that spandrel supports; found {first_few(file.weights)}"
        )
    network, name = found
    if overrides:
        raise UserError(f"contains {name}, which spandrel builds from the weights alone: model.{next(iter(overrides))} cannot be changed")
    parameters = sum(p.numel() for p in network.parameters())
    sizes = f"scale {network.scale}, channels {network.in_channels}, {parameters:,} parameters"
    _log.info("%s: weights of %s, built by spandrel, %s", file.path, name, sizes)
    model = {"name": name, "spandrel": network.architecture}
    return Checkpoint(file.path, network, model, record["task"], record["step"], record["task_config"])


def _faults(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return how weights differ from those of a network: the names of the tensors by kind of difference."""
    own = network.state_dict()
    faults = {
        "missing": [name for name in own if name not in weights],
        "unexpected": [name for name in weights if name not in own],
        "of a different shape": [name for name, value in weights.items() if name in own and own[name].shape != value.shape],
        "of a different dtype": [
            name for name, value in weights.items() if name in own and own[name].is_floating_point() != value.is_floating_point()
        ],
    }
    shapes = [f"{name} {list(weights[name].shape)} instead of {list(own[name].shape)}" for name in faults["of a different shape"]]
    dtypes = [f"{name} {weights[name].dtype} instead of {own[name].dtype}" for name in faults["of a different dtype"]]
    return {fault: names for fault, names in (faults | {"of a different shape": shapes, "of a different dtype": dtypes}).items() if names}


def _listed(faults: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{len(names)} {fault} ({first_few(names)})" for fault, names in faults.items())
