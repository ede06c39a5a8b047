"""From files of weights to networks and back: our own files, official ones, and whatever else the community has.

Our own format is safetensors with the whole configuration inside: one file rebuilds the network.
"""

import json
import logging
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from irformer.core.files import write_atomically
from irformer.core.trust import Trust, shortened, targets
from irformer.errors import UserError, naming
from irformer.models.frame import ENLARGING, UPSAMPLER
from irformer.weights.building import build, build_on_meta, require_network
from irformer.weights.community import load_community, recorded_architecture
from irformer.weights.formats import describe, our_names, recognise
from irformer.weights.overrides import override_model
from irformer.weights.reading import RECORD, WeightFile, first_few, read_weight_file, require_finite
from irformer.weights.records import parse_record

BEST = Path("checkpoints/best.safetensors")
LAST = Path("checkpoints/last.ckpt")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A network read from a file, in evaluation mode, and what the file says of it.

    Args:
        path: the file.
        network: the network, rebuilt and filled.
        model: the `model` part of its configuration, norm included; of networks that spandrel built `name` and `spandrel`, the
            architecture.
        task: name of the task that it was trained for, or None where the file does not say it.
        step: optimizer steps that it was trained for, or None.
        task_config: the `task` part of the configuration that it was trained with, plain values; None where the file does not say it.
    """

    path: Path
    network: nn.Module
    model: dict[str, Any]
    task: str | None
    step: int | None
    task_config: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        """The network in a few words, as tables call it."""
        norm = f", norm {self.model['norm']['name']}" if "norm" in self.model else ""
        return f"{self.model['name']}{norm}, {self.path.name if self.step is None else f'step {self.step}'}"


def network_record(
    model: Mapping[str, Any],
    task: str | None,
    step: int | None,
    metrics: Mapping[str, float],
    task_config: Mapping[str, Any] | None = None,
) -> str:
    """Describe the network that a file holds, in JSON: everything that rebuilding and measuring it needs.

    Args:
        model: the `model` part of the configuration, plain values.
        task: name of the task, or None.
        step: optimizer steps so far, or None.
        metrics: of the validation that the weights were saved for.
        task_config: the `task` part of the configuration, resolved, plain values; None leaves it out of the record.
    """
    record = {"model": dict(model), "task": task, "step": step, "validation": dict(metrics)}
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
    """Write a network as safetensors with its configuration, through a temporary file.

    Args:
        path: the file, ending in .safetensors.
        network: its parameters and saved buffers are written.
        model: the `model` part of the configuration, plain values.
        task: name of the task, or None.
        step: optimizer steps so far, or None.
        metrics: of the validation that it was saved for.
        task_config: the `task` part of the configuration, resolved, plain values, or None.
    """
    save_weights(path, network.state_dict(), network_record(model, task, step, metrics, task_config))


def save_weights(path: Path, weights: Mapping[str, Tensor], record: str) -> None:
    """Write weights as safetensors with a record (see `network_record`), through a temporary file."""
    own = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    write_atomically(path, lambda aside: safetensors.torch.save_file(own, aside, metadata={RECORD: record}))


def saved_validation(path: Path) -> dict[str, float]:
    """The validation metrics that a .safetensors file of ours was saved for, by name."""
    with naming(f"{path}: "), safetensors.safe_open(path, framework="pt") as opened:
        return parse_record((opened.metadata() or {}).get(RECORD))["validation"]


def load_checkpoint(path: Path, overrides: Mapping[str, Any] | None = None, trust: Trust | None = None) -> Checkpoint:
    """Rebuild a network from a run's folder or from a file of weights: ours, official, or of any network that spandrel knows.

    Official files say by names and shapes what they hold (formats.py); what was recognised is logged in one line. No file can
    run code: a record names only networks and norms of irformer, and classes of packages that the user trusts.

    Args:
        path: a run's folder (its best weights), or a .safetensors, .pth, .pt or .ckpt file.
        overrides: changes to the `model` part of the configuration, by dotted keys, for what weights do not say: `{"pixel_range": 255.0}`,
            `{"norm.standardize_input": False}`.
        trust: which classes the file may name; None reads the variable IRFORMER_TRUST.

    Raises:
        UserError: there is no such file, it is damaged, would run code, holds weights that are not finite, or a network that is not known
            or not whole.
    """
    file = read_weight_file(_file_of(path))
    with naming(f"{file.path}: "):
        trust = trust or Trust()
        require_finite(file.weights)
        model = _model_of(file, trust)
        if model is None:
            return _load_community(file, overrides or {})
        model = override_model(model, overrides or {})
        network = _build(model, _weights_of(file), trust.with_names(_named_by_user(model, overrides or {})), file.path)
    load_weights(network, _weights_of(file), file.path)
    if file.record is None:
        parameters = sum(p.numel() for p in network.parameters())
        under = f" under {file.wrapping}" if file.wrapping else ""
        _log.info("%s: official weights%s of %s, %s parameters", file.path, under, describe(model), f"{parameters:,}")
        return Checkpoint(file.path, network, model, None, None)
    return Checkpoint(file.path, network, model, file.record["task"], file.record["step"], file.record["task_config"])


def _build(model: Mapping[str, Any], weights: Mapping[str, Tensor], trust: Trust, path: Path) -> nn.Module:
    """The network of a configuration that was read from a file."""
    _require_buildable(model, weights, trust, path)
    node = {key: value for key, value in model.items() if key != "name"}
    network = build(node, trust, "network")
    require_network(network, node["_target_"])
    derived = [name for name, value in network.named_buffers() if not value.isfinite().all()]
    if derived:
        raise UserError(f"its configuration makes {first_few(derived)} infinite or not a number; expected a pixel_range above 0")
    return network.eval()


def _require_buildable(model: Mapping[str, Any], weights: Mapping[str, Tensor], trust: Trust, path: Path) -> None:
    """Compare a network with the file's weights before it takes memory; one of the user's own may not know the meta device."""
    node = {key: value for key, value in model.items() if key != "name"}
    if all(trust.is_builtin(target, "network") for target in targets(node)):
        _require_fit(build_on_meta(node, trust, len(weights)), weights, path)


def _named_by_user(model: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[str]:
    """The classes in a changed configuration that came with the changes."""
    keys = {key.split(".")[0] for key in overrides}
    return [str(target) for key in keys for target in targets(model.get(key))]


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Fill a network, every parameter of it and with nothing left over.

    Raises:
        UserError: the weights are those of another network; the first differences are named.
    """
    _require_fit(network, weights, file)
    network.load_state_dict(weights)


def _require_fit(network: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    faults = _faults(network, weights)
    if faults:
        raise UserError(f"{file} holds weights that are not those of the {type(network).__name__} as configured: {_told(faults)}")


@dataclass(frozen=True)
class Transfer:
    """What a network took over from a file when its training started, and what it did not find there.

    Args:
        source: the file, and what it holds.
        kept: tensors that were taken over, by name, and their numbers of parameters.
        fresh: tensors that keep their random start.
    """

    source: str
    kept: dict[str, int]
    fresh: dict[str, int]

    def __str__(self) -> str:
        kept = f"{self.source}: kept {sum(self.kept.values()):,} parameters in {len(self.kept)} tensors"
        if not self.fresh:
            return f"{kept}, all there are"
        modules = dict.fromkeys(name.partition(".")[0] for name in self.fresh)
        return f"{kept}; fresh {sum(self.fresh.values()):,} parameters in {len(self.fresh)} tensors ({', '.join(modules)})"


def transfer_weights(network: nn.Module, path: Path, trust: Trust | None = None) -> Transfer:
    """Start a network from the weights of a file that may be of another scale: what fits by name and shape is kept.

    The whole body has to fit; the upsampler may be fresh. Its enlarging convolutions are kept only if all of them fit: one of two that
    was trained to enlarge alone is no start for both.

    Args:
        network: is filled.
        path: a run's folder or a file, as for `load_checkpoint`.
        trust: which classes the file may name; None reads the variable IRFORMER_TRUST.

    Raises:
        UserError: the file cannot be read, holds weights that are not finite or those of another network; the first differences are named.
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
                    _require_buildable(model, weights, trust, file.path)
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
            f"init_from={file.path} holds {_described(file)}, not those of the {type(network).__name__} as configured "
            f"(its upsampler alone may differ): {_told(faults)}"
        )
    network.load_state_dict({name: weights[name] for name in fitting}, strict=False)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    kept = {name: size for name, size in sizes.items() if name in fitting}
    fresh = {name: size for name, size in sizes.items() if name not in fitting}
    return Transfer(f"{file.path}, {_described(file)}", kept, fresh)


def _file_of(path: Path) -> Path:
    """A file, or the best weights in a run's folder."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # reading the file says what is wrong with it
        return path
    if not stat.S_ISDIR(mode):
        return path
    if not (path / BEST).exists():
        raise UserError(f"{path}: no {BEST} in this folder; a run has it once it has been validated, before that give its {LAST}")
    return path / BEST


def _model_of(file: WeightFile, trust: Trust) -> dict[str, Any] | None:
    """The configuration of the network in a file; None where the network is none of irformer."""
    if file.record is None:
        return recognise(file.weights)
    model = file.record["model"]
    if recorded_architecture(model) is not None:
        return None
    trust.require(model, "network")
    lacking = [key for key in ("_target_", "name", "norm") if key not in model]
    if lacking:
        raise UserError(f"its configuration says nothing of {', '.join(lacking)}; expected the `model` part of a run's config.yaml")
    names = {"name": model["name"], "norm.name": model["norm"].get("name") if isinstance(model["norm"], dict) else None}
    for key, name in names.items():
        if not isinstance(name, str):
            raise UserError(f"{key}={shortened(name)} in its record: expected a name")
    return model


def _weights_of(file: WeightFile) -> dict[str, Tensor]:
    return our_names(file.weights) if file.record is None else file.weights


def _described(file: WeightFile) -> str:
    """Whose weights a file holds, as far as it says so itself."""
    record = file.record
    if record is not None:
        name, norm = record["model"].get("name"), record["model"].get("norm")
        if recorded_architecture(record["model"]) is not None:
            return f"the weights of {shortened(name)}, which spandrel builds"
        norm_name = norm.get("name") if isinstance(norm, dict) else None
        return f"the weights of {shortened(name)}, norm {shortened(norm_name)}, {record['task'] or 'task not said'}"
    try:
        model = recognise(file.weights)
    except UserError:
        model = None
    return f"the official weights of {describe(model)}" if model is not None else "the weights of another network"


def _load_community(file: WeightFile, overrides: Mapping[str, Any]) -> Checkpoint:
    record = file.record or {"model": {}, "task": None, "step": None, "task_config": None}
    found = load_community(file.weights, recorded_architecture(record["model"]))
    if found is None:
        raise UserError(f"neither SwinIR, HAT, DRCT or Restormer nor a network that spandrel knows; it holds {first_few(file.weights)}")
    network, name = found
    if overrides:
        raise UserError(f"holds {name}, which spandrel builds from the weights alone: model.{next(iter(overrides))} cannot be changed")
    parameters = sum(p.numel() for p in network.parameters())
    sizes = f"scale {network.scale}, channels {network.in_channels}, {parameters:,} parameters"
    _log.info("%s: weights of %s, built by spandrel, %s", file.path, name, sizes)
    model = {"name": name, "spandrel": network.architecture}
    return Checkpoint(file.path, network, model, record["task"], record["step"], record["task_config"])


def _faults(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """In what weights differ from those that a network has, and where: kinds of fault, each with its names."""
    own = network.state_dict()
    faults = {
        "missing": [name for name in own if name not in weights],
        "unexpected": [name for name in weights if name not in own],
        "of another shape": [name for name, value in weights.items() if name in own and own[name].shape != value.shape],
        "of another type": [
            name for name, value in weights.items() if name in own and own[name].is_floating_point() != value.is_floating_point()
        ],
    }
    shapes = [f"{name} {list(weights[name].shape)} for {list(own[name].shape)}" for name in faults["of another shape"]]
    types = [f"{name} {weights[name].dtype} for {own[name].dtype}" for name in faults["of another type"]]
    return {fault: names for fault, names in (faults | {"of another shape": shapes, "of another type": types}).items() if names}


def _told(faults: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{len(names)} {fault} ({first_few(names)})" for fault, names in faults.items())
