"""Inspecting a checkpoint: what it is, its features on photos, its weights, and the precision that is safe for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from irformer.dynamics.features import Measured, measure
from irformer.dynamics.parameters import magnitude_correlations, norm_vectors, position_biases, smoothness
from irformer.dynamics.selection import GROUPS, Layer, matching, select_layers
from irformer.evaluation.results import strict
from irformer.inspection.evidence import PRECISIONS, RULE, Evidence, Verdict, gather_evidence, judge
from irformer.inspection.probing_photos import probing_photos
from irformer.inspection.receptive_field import ReceptiveField, receptive_field
from irformer.models.flops import forward_flops
from irformer.models.interface import final_norm_of, groups_of, layer_names_of, multiple_of
from irformer.models.module_tree import repeated_parts
from irformer.precision import LARGEST_HALF
from irformer.weights.checkpoints import Checkpoint

BLOCKS = "blocks"
STAGES = ("fp32", *PRECISIONS, "features", "receptive field")


@dataclass(frozen=True)
class Description:
    """What a network is.

    Args:
        name: name of the architecture or configuration.
        sizes: its arguments by name; empty for networks that spandrel builds from the weights alone.
        norm: its norm, or the classes of the norms in a network of another project.
        scale: upscaling factor.
        channels: image channels.
        parameters: number of parameters.
        groups: number of groups.
        blocks: number of blocks in all groups.
        size: side in pixels of the image for which FLOPs are counted.
        flops: floating-point operations for that image, two per multiply-add; None if they cannot be counted.
        receptive_field: how far it sees, or None if this cannot be measured.
        size_multiple: multiple to which images are padded.
        task: the task that it was trained for, or None.
        step: the steps that it was trained for, or None.
        license: the license of the weights, or None if it is not stated.
    """

    name: str
    sizes: Mapping[str, Any]
    norm: str
    scale: int
    channels: int
    parameters: int
    groups: int
    blocks: int
    size: int
    flops: int | None
    receptive_field: ReceptiveField | None
    size_multiple: int
    task: str | None
    step: int | None
    license: str | None


@dataclass(frozen=True)
class LayerReport:
    """The features after a group or block, on all photos.

    Args:
        kind: `groups` or `blocks`.
        name: name of the module.
        mean_square: feature magnitude (`irformer.dynamics.statistics.mean_square`).
        max_abs: the largest absolute value.
        range_share: the largest absolute value as a share of 65504, the largest float16.
        top1_share: share of the strongest channel in the energy.
    """

    kind: str
    name: str
    mean_square: float
    max_abs: float
    range_share: float
    top1_share: float


@dataclass(frozen=True)
class Inspection:
    """The report on a checkpoint.

    Args:
        path: its file.
        description: what it is.
        device: where it was measured; rounding in low precision depends on it.
        photos: names of the photos on which it was measured.
        layers: groups and blocks in the order of computation.
        peak_layer: the layer of any kind with the largest activation.
        peak: that activation.
        final_norm: name of the final norm, or None if it has none.
        final_correlations: rank correlation of the final norm's |weight| and |bias| with the magnitude of the channels that it reads.
        bias_smoothness: smoothness of the relative position biases by the name of the attention layer.
        bias_tables: the biases themselves, [heads, rows, columns].
        evidence: runs in other precisions.
        verdict: the verdict.
    """

    path: str
    description: Description
    device: str
    photos: Sequence[str]
    layers: Sequence[LayerReport]
    peak_layer: str
    peak: float
    final_norm: str | None
    final_correlations: Mapping[str, float]
    bias_smoothness: Mapping[str, float]
    bias_tables: Mapping[str, NDArray]
    evidence: Sequence[Evidence]
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for strict JSON, without the tables of biases."""
        values = {name: value for name, value in vars(self).items() if name != "bias_tables"}
        plain = {name: asdict(value) if name in ("description", "verdict") else value for name, value in values.items()}
        plain |= {name: [asdict(part) for part in values[name]] for name in ("layers", "evidence")}
        plain["range_share"] = self.peak / LARGEST_HALF
        plain["verdict"]["rule"] = RULE
        for part, run in zip(plain["evidence"], self.evidence, strict=True):
            part["lowest_psnr"] = run.lowest_psnr
        return strict(plain)


def inspect_checkpoint(
    checkpoint: Checkpoint,
    size: int = 64,
    device: torch.device | str = "cpu",
    license: str | None = None,
    stage: Callable[[str], object] = lambda _: None,
) -> Inspection:
    """Inspect the network of a checkpoint, which is moved to the device.

    Args:
        checkpoint: the network with the metadata of its file.
        size: side in LQ pixels of the photos, and of the image for which FLOPs are counted.
        device: where it computes.
        license: license of the weights, if known.
        stage: called with the name of each of the `STAGES` before it begins.

    Raises:
        UserError: the photos are smaller than the size, or the network fails on them.
    """
    network: Any = checkpoint.network.to(device)
    photos = {name: photo.to(device) for name, photo in probing_photos(network.in_channels, network.scale, size).items()}
    largest, evidence = gather_evidence(network, photos, stage)
    stage("features")
    order = {name: place for place, name in enumerate(largest)}
    layers = sorted(_layers(network), key=lambda layer: order.get(layer.name, len(order)))
    measured = measure(network, torch.cat(list(photos.values())), layers)
    final = _final_norm(network, measured, list(largest))
    tables = position_biases(network)
    peak_layer = max(largest, key=lambda name: largest[name])
    stage("receptive field")
    return Inspection(
        path=str(checkpoint.path),
        description=_described(checkpoint, layers, next(iter(photos.values())), size, license),
        device=str(device),
        photos=list(photos),
        layers=[_layer_report(one) for one in measured],
        peak_layer=peak_layer,
        peak=largest[peak_layer],
        final_norm=final[0] if final is not None else None,
        final_correlations=final[1] if final is not None else {},
        bias_smoothness={name: smoothness(table) for name, table in tables.items()},
        bias_tables=tables,
        evidence=evidence,
        verdict=judge(largest[peak_layer], evidence),
    )


def _layers(network: nn.Module) -> list[Layer]:
    """Return the groups and blocks that a network declares, or those in its module tree."""
    if groups_of(network):
        names = {name for name, _ in network.named_modules()}
        declared = matching(layer_names_of(network).get(BLOCKS, []), names)
        return select_layers(network, [GROUPS, BLOCKS] if declared else [GROUPS])
    found = dict(zip((GROUPS, BLOCKS), repeated_parts(network), strict=True))
    layers = [layer for names in found.values() if names for layer in select_layers(network, names)]
    kinds = {name: kind for kind, names in found.items() for name in names}
    return [Layer(kinds[layer.name], layer.index, layer.name, layer.module, layer.channels_first) for layer in layers]


def _layer_report(one: Measured) -> LayerReport:
    values = one.values
    share = values["max_abs"] / LARGEST_HALF
    return LayerReport(one.layer.kind, one.layer.name, values["mean_square"], values["max_abs"], share, values["top1_share"])


def _final_norm(network: nn.Module, measured: Sequence[Measured], order: Sequence[str]) -> tuple[str, dict[str, float]] | None:
    """Return the name of the final norm and its correlations with the channels of the last group.

    In a network that declares none, it is the first module after the last group with a weight for each channel of this group.
    """
    groups = [one for one in measured if one.layer.kind == GROUPS]
    if not groups:
        return None
    last = groups[-1]
    declared = final_norm_of(network)
    if declared is not None:
        candidates = [name for name, module in network.named_modules() if module is declared]
    else:
        candidates = [] if last.layer.name not in order else list(order[order.index(last.layer.name) + 1 :])
    for name in candidates:
        vectors = norm_vectors(network.get_submodule(name))
        if vectors.get("weight") is not None and len(vectors["weight"]) == len(last.energy):
            return name, magnitude_correlations(vectors, last.energy)
    return None


def _described(checkpoint: Checkpoint, layers: Sequence[Layer], photo: Tensor, size: int, license: str | None) -> Description:
    network: Any = checkpoint.network
    model = checkpoint.model
    return Description(
        name=str(model["name"]),
        sizes=_sizes(model),
        norm=_norm_words(network, model.get("norm")),
        scale=network.scale,
        channels=network.in_channels,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        groups=sum(layer.kind == GROUPS for layer in layers),
        blocks=sum(layer.kind == BLOCKS for layer in layers),
        size=size,
        flops=_flops(network, photo),
        receptive_field=receptive_field(network),
        size_multiple=multiple_of(network),
        task=checkpoint.task,
        step=checkpoint.step,
        license=license,
    )


def _sizes(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a network that have no field of their own; of a nested network, its class."""
    hidden = ("name", "norm", "scale", "in_channels", "spandrel")
    shown = {key: value.get("_target_") if isinstance(value, dict) else value for key, value in model.items()}
    return {key: value for key, value in shown.items() if key not in hidden and not key.startswith("_") and value is not None}


def _norm_words(network: nn.Module, norm: Any) -> str:
    if isinstance(norm, dict):
        others = [f"{key} {value}" for key, value in norm.items() if key != "name" and isinstance(value, str | bool) and key[0] != "_"]
        return ", ".join([str(norm["name"]), *others])
    classes = dict.fromkeys(type(module).__name__ for module in network.modules() if "Norm" in type(module).__name__)
    return ", ".join(classes) or "none"


def _flops(network: nn.Module, photo: Tensor) -> int | None:
    try:
        return forward_flops(network, photo)
    except Exception:  # operations that cannot be traced, in networks of other projects
        return None
