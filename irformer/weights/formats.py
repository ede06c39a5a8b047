"""Official layouts of weights: which network, of what sizes and with which norm, read out of names and shapes; and written again.

Read and written are SwinIR, HAT, DRCT and Restormer with the norms of their official codes, and the HAT of the official i-LN code. What
weights do not say takes the official value.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from irformer.errors import UserError
from irformer.models import DRCT, HAT, Restormer, SwinIR
from irformer.models.frame import WindowTransformer
from irformer.models.hat import OverlappingCrossAttention, overlapping_positions
from irformer.models.layers import SwinBlock, relative_positions, tokens_apart
from irformer.models.restormer import from_official, to_official
from irformer.norms import ILN, BiasFreeLayerNorm, LayerNorm

Weights = Mapping[str, Tensor]
ModelConfig = dict[str, Any]

# The norms of the official codes, with what their weights do not say. Not read from configs/norm: what a user changes there must not
# change how an official file is understood.
_NORMS: dict[str, ModelConfig] = {
    "ln": {"block": "LayerNorm", "eps": 1e-5, "ends": "same", "standardize_input": False},
    "ln_biasfree": {"block": "BiasFreeLayerNorm", "eps": 1e-5, "ends": "same", "standardize_input": False},
    "iln": {"block": "ILN", "eps": 1e-4, "ends": "affine", "standardize_input": True},
}
# Saved by the official codes, although they follow from the sizes.
_DERIVED = re.compile(r"(^|\.)(attn_mask|relative_position_index(_SA|_OCA)?)$|^mean$")
_SWIN, _DENSE = "layers.0.residual_group.blocks.0", "layers.0.swin1"
_MARKS = {
    "hat": ("conv_first.weight", f"{_SWIN}.attn.qkv.weight", f"{_SWIN}.conv_block.cab.0.weight"),
    "swinir": ("conv_first.weight", f"{_SWIN}.attn.qkv.weight", f"{_SWIN}.attn.relative_position_bias_table"),
    "drct": ("conv_first.weight", f"{_DENSE}.attn.qkv.weight", "layers.0.adjust1.weight"),
    "restormer": ("patch_embed.proj.weight", "encoder_level1.0.attn.temperature", "latent.0.ffn.project_in.weight"),
}


def our_names(weights: Weights) -> dict[str, Tensor]:
    """Official weights under the names of the networks here, derived buffers left out.

    Restormer's norms hold theirs in `body`, and official i-LN calls weight and bias gamma and beta.
    """
    renamed = {}
    for name, value in from_official(weights).items():
        stem, _, last = name.rpartition(".")
        if last in ("gamma", "beta") and f"{stem}.gamma" in weights and f"{stem}.beta" in weights and f"{stem}.weight" not in weights:
            name = f"{stem}.{'weight' if last == 'gamma' else 'bias'}"
        if not _DERIVED.search(name):
            renamed[name] = value
    return renamed


def recognise(weights: Weights) -> ModelConfig | None:
    """The configuration of the network whose official weights these are; None where they are of no network here.

    Args:
        weights: by their official names.

    Returns:
        The `model` part of a configuration, norm included. What weights do not say has its official value: pixel_range is 255 for
        SwinIR with window 7 and without an upsampler (the JPEG networks) and 1 for all others, conv_scale is 0.01, and i-LN has eps
        1e-4, affine ends and a standardised input.

    LayerNorm and i-LN are told apart by the names of the official codes alone: a bare state dict of a network here, which calls both weight
    and bias, reads as LayerNorm. Files of ours say what they hold, and never come here.

    Raises:
        UserError: they are named as those of a network here, but lack what its sizes are read from.
    """
    family = next((family for family, marks in _MARKS.items() if all(mark in weights for mark in marks)), None)
    if family is None or _is_variant(weights):
        return None
    try:
        return _READERS[family](weights)
    except KeyError as error:
        raise UserError(f"named as weights of {family}, but {error.args[0]} is missing") from None
    except (IndexError, ZeroDivisionError, ValueError, TypeError, OverflowError):
        raise UserError(f"named as weights of {family}, but of shapes that its sizes cannot be read from") from None


def describe(model: ModelConfig) -> str:
    """A network in a few words, from its configuration: what was recognised."""
    told = {"scale": "scale", "in_channels": "channels", "embed_dim": "features", "dim": "features", "depths": "depths"}
    told |= {"num_blocks": "blocks", "num_heads": "heads", "heads": "heads", "window_size": "window", "upsampler": "upsampler"}
    sizes = [f"{word} {_listed(model[key])}" for key, word in told.items() if model.get(key, "") != ""]
    return f"{model['name']}, norm {model['norm']['name']}, {', '.join(sizes)}"


def _listed(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_variant(weights: Weights) -> bool:
    """What official codes allow and the networks here do not have: none of the published networks uses it."""
    before = weights.get("conv_before_upsample.0.weight")
    windowed = "conv_first.weight" in weights
    return (
        "absolute_pos_embed" in weights
        or "conv_up3.weight" in weights
        or (windowed and not any(f"patch_embed.norm.{name}" in weights for name in ("weight", "gamma")))
        or (before is not None and len(before) != 64)
    )


def _read_swinir(weights: Weights) -> ModelConfig | None:
    model = _read_frame("swinir", weights, _SWIN)
    groups, width = _count(weights, "layers."), model["embed_dim"]
    model["depths"] = [_count(weights, f"layers.{i}.residual_group.blocks.") for i in range(groups)]
    model["num_heads"] = [_heads(weights, f"layers.{i}.residual_group.blocks.0") for i in range(groups)]
    model["mlp_ratio"] = _ratio([(width, len(weights[f"{_SWIN}.mlp.fc1.weight"]))], 2.0)
    if model["window_size"] == 7 and model["upsampler"] == "":
        model["pixel_range"] = 255.0
    return model if model["norm"]["name"] == "ln" else None


def _read_hat(weights: Weights) -> ModelConfig:
    model = _read_frame("hat", weights, _SWIN)
    groups, width, window = _count(weights, "layers."), model["embed_dim"], model["window_size"]
    model["depths"] = [_count(weights, f"layers.{i}.residual_group.blocks.") for i in range(groups)]
    model["num_heads"] = [_heads(weights, f"layers.{i}.residual_group.blocks.0") for i in range(groups)]
    model["mlp_ratio"] = _ratio([(width, len(weights[f"{_SWIN}.mlp.fc1.weight"]))], 2.0)
    model["compress_ratio"] = width // len(weights[f"{_SWIN}.conv_block.cab.0.weight"])
    model["squeeze_factor"] = width // len(weights[f"{_SWIN}.conv_block.cab.3.attention.1.weight"])
    model["conv_scale"] = 0.01
    # The table has a row for every offset between a window and the larger one around it: (window + larger - 1)^2.
    span = math.isqrt(len(weights["layers.0.residual_group.overlap_attn.relative_position_bias_table"]))
    model["overlap_ratio"] = _ratio([(window, span + 1 - 2 * window)], 0.5)
    return model


def _read_drct(weights: Weights) -> ModelConfig | None:
    model = _read_frame("drct", weights, _DENSE)
    growth, width = len(weights["layers.0.adjust1.weight"]), model["embed_dim"]
    model["growth_channels"] = growth
    model["num_heads"] = [_heads(weights, f"layers.{i}.swin1") for i in range(_count(weights, "layers."))]
    hidden = [len(weights[f"layers.0.swin{i + 1}.mlp.fc1.weight"]) for i in range(3)]  # the two blocks after them have ratio 1
    model["mlp_ratio"] = _ratio([(width + i * growth, hidden[i]) for i in range(3)], 2.0)
    return model if model["norm"]["name"] == "ln" else None


def _read_restormer(weights: Weights) -> ModelConfig:
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    dim, in_channels = weights["patch_embed.proj.weight"].shape[:2]
    hidden = [len(weights[f"{level}.0.ffn.project_in.weight"]) // 2 for level in levels]
    norms = ("encoder_level1.0.norm1.body.bias", "encoder_level1.0.norm1.bias")  # the latter in bare weights saved from here
    return {
        "name": "restormer",
        "_target_": "irformer.models.Restormer",
        "norm": _norm("ln" if any(name in weights for name in norms) else "ln_biasfree"),
        "scale": 1,
        "in_channels": in_channels,
        "dim": dim,
        "num_blocks": [_count(weights, f"{level}.") for level in levels],
        "num_refinement_blocks": _count(weights, "refinement."),
        "heads": [len(weights[f"{level}.0.attn.temperature"]) for level in levels],
        "ffn_expansion_factor": _ratio([(dim * 2**i, hidden[i]) for i in range(4)], 2.66),
        "bias": "encoder_level1.0.attn.qkv.bias" in weights,
    }


_READERS: dict[str, Callable[[Weights], ModelConfig | None]] = {
    "hat": _read_hat,
    "swinir": _read_swinir,
    "drct": _read_drct,
    "restormer": _read_restormer,
}


def _read_frame(name: str, weights: Weights, block: str) -> ModelConfig:
    """What SwinIR, HAT and DRCT have in common; `block` is the name of the first block."""
    embed_dim, in_channels = weights["conv_first.weight"].shape[:2]
    scale, upsampler = _read_upsampler(weights, in_channels)
    span = math.isqrt(len(weights[f"{block}.attn.relative_position_bias_table"]))  # 2 window - 1 offsets along each axis
    closing = {"conv_after_body.weight": "1conv", "conv_after_body.0.weight": "3conv"}
    return {
        "name": name,
        "_target_": f"irformer.models.{ {'swinir': 'SwinIR', 'hat': 'HAT', 'drct': 'DRCT'}[name] }",
        "norm": _norm("iln" if f"{block}.norm1.beta" in weights else "ln"),
        "scale": scale,
        "in_channels": in_channels,
        "embed_dim": embed_dim,
        "window_size": (span + 1) // 2,
        "upsampler": upsampler,
        "resi_connection": next((kind for key, kind in closing.items() if key in weights), "identity"),
        "pixel_range": 1.0,
        "qkv_bias": f"{block}.attn.qkv.bias" in weights,
        "drop_path_rate": 0.1,
    }


def _read_upsampler(weights: Weights, in_channels: int) -> tuple[int, str]:
    """Scale and upsampler."""
    if "conv_up1.weight" in weights:
        return (4 if "conv_up2.weight" in weights else 2), "nearest+conv"
    convolutions = [name for name in weights if re.fullmatch(r"upsample\.\d+\.weight", name)]
    if "conv_before_upsample.0.weight" in weights:
        features = len(weights["conv_before_upsample.0.weight"])
        each = [math.isqrt(len(weights[name]) // features) for name in convolutions]
        return math.prod(each), "pixelshuffle"
    if convolutions:
        return math.isqrt(len(weights["upsample.0.weight"]) // in_channels), "pixelshuffledirect"
    return 1, ""


def _norm(name: str) -> ModelConfig:
    facts = _NORMS[name]
    block = {"_target_": f"irformer.norms.{facts['block']}", "_partial_": True, "eps": facts["eps"]}
    ends = {"ends": facts["ends"], "standardize_input": facts["standardize_input"]}
    return {"_target_": "irformer.norms.NormScheme", "name": name, "block": block, **ends}


def _count(weights: Weights, prefix: str) -> int:
    """How many numbers stand after a prefix of names."""
    return len({name[len(prefix) :].partition(".")[0] for name in weights if name.startswith(prefix)})


def _heads(weights: Weights, block: str) -> int:
    return weights[f"{block}.attn.relative_position_bias_table"].shape[1]


def _ratio(pairs: list[tuple[int, int]], official: float) -> float:
    """The r with int(width * r) == hidden for all pairs (width, hidden): the official one if it fits, or else the shortest decimal."""
    low = max(hidden / width for width, hidden in pairs)
    candidates = [official, *(math.ceil(low * 10**digits) / 10**digits for digits in range(8)), low]
    return next((r for r in candidates if all(int(width * r) == hidden for width, hidden in pairs)), official)


# What the official codes offer: norms, and what their constructors take for the other choices.
_OFFICIAL: dict[type[nn.Module], tuple[tuple[type[nn.Module], ...], dict[str, tuple[str, ...]]]] = {
    SwinIR: ((LayerNorm,), {}),
    HAT: ((LayerNorm, ILN), {"upsampler": ("pixelshuffle",)}),
    DRCT: ((LayerNorm,), {"upsampler": ("pixelshuffle",)}),
    Restormer: ((LayerNorm, BiasFreeLayerNorm), {}),
}


# The patch sizes (`img_size`) for which the official test scripts build SwinIR, and BasicSR's configurations DRCT. A network without an
# upsampler removes noise or JPEG artifacts: 128, and 126 with the window of 7 pixels of the JPEG networks.
_PATCH, _PATCH_OF_RESTORATION, _LARGEST_PATCH = 64, 128, 1024


def official_weights(network: nn.Module, training_patch_size: int | None = None) -> dict[str, Tensor]:
    """The weights of a network in the official layout: official names, and the derived buffers that official codes load strictly.

    The official SwinIR and DRCT save the attention mask of every shifted block, for square images of the size of a training patch. It is
    written for the size for which the official test script of the task builds its network: 64 pixels for super-resolution, 128 for
    denoising and 126 for JPEG artifacts (window 7).

    Args:
        network: a SwinIR, HAT, DRCT or Restormer.
        training_patch_size: another size of the masks, in pixels: 48 for the half of the classical SwinIR networks that was trained on
            patches of 48. A multiple of the window, from two windows to 1024.

    Returns:
        Tensors by name.

    Raises:
        UserError: the official code has no such network or not its norm, or no masks of this size.
    """
    known = next((kind for kind in _OFFICIAL if type(network) is kind), None)
    if known is None:
        raise UserError(f"{type(network).__name__} has no official layout here; SwinIR, HAT, DRCT and Restormer have")
    norms, choices = _OFFICIAL[known]
    norm = next(module for name, module in network.named_modules() if name.endswith("norm1"))
    if type(norm) not in norms:
        offered = " and ".join(kind.__name__ for kind in norms)
        raise UserError(f"the official {known.__name__} has no {type(norm).__name__}, only {offered}; export with --format safetensors")
    for choice, allowed in choices.items():
        if getattr(network, choice) not in allowed:
            raise UserError(f"the official {known.__name__} has no {choice} {getattr(network, choice)!r}, only {', '.join(allowed)}")
    if training_patch_size is not None and known not in (SwinIR, DRCT):
        raise UserError(f"training_patch_size={training_patch_size}: official weights of {known.__name__} hold no masks; leave it out")
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if isinstance(network, Restormer):
        return to_official(weights)
    if isinstance(norm, ILN):
        weights = {re.sub(r"(\bnorm[12]?)\.weight$", r"\1.gamma", name): value for name, value in weights.items()}
        weights = {re.sub(r"(\bnorm[12]?)\.bias$", r"\1.beta", name): value for name, value in weights.items()}
    return weights | _derived_buffers(network, training_patch_size)


def _derived_buffers(network: nn.Module, training_patch_size: int | None) -> dict[str, Tensor]:
    """Position indices and shift masks, named and made as the official codes of SwinIR, HAT and DRCT do."""
    assert isinstance(network, WindowTransformer)
    window = network.window_size
    index = relative_positions(window)
    if isinstance(network, HAT):
        larger = next(module.overlap_window for module in network.modules() if isinstance(module, OverlappingCrossAttention))
        span = window + larger - 1
        # The official offsets start at 2 - larger; those here are the same modulo the table's length.
        lowest = (span + 1) * (2 - larger)
        overlapping = (overlapping_positions(window, larger) - lowest) % span**2 + lowest
        return {"relative_position_index_SA": index, "relative_position_index_OCA": overlapping}
    mask = _official_mask(_patch_size(network, training_patch_size) // window, window)
    buffers = {}
    for name, block in network.named_modules():
        if isinstance(block, SwinBlock):
            buffers[f"{name}.attn.relative_position_index"] = (
                index.clone()
            )  # a file that shares memory among weights is refused when it is read
            if block.shift > 0:
                buffers[f"{name}.attn_mask"] = mask.clone()
    return buffers


def _patch_size(network: WindowTransformer, chosen: int | None) -> int:
    """The size that masks are of: as chosen, or the official one.

    An official network that is built for no more than one window shifts nothing: it is another network, so two windows are the least.
    """
    window = network.window_size
    if chosen is None:
        official = _PATCH if network.upsampler else _PATCH_OF_RESTORATION
        return max(official // window, 2) * window
    if chosen % window or not 2 * window <= chosen <= _LARGEST_PATCH:
        raise UserError(f"training_patch_size={chosen}: expected a multiple of the window, {window}, from {2 * window} to {_LARGEST_PATCH}")
    return chosen


def _official_mask(windows: int, window: int) -> Tensor:
    """The mask that official codes save for a square image of so many windows a side: [windows^2, n, n], 0 or -100."""
    right, bottom, corner = torch.zeros(3, window**2, window**2).masked_fill(tokens_apart(window, window // 2), -100.0)
    mask = torch.zeros(windows, windows, window**2, window**2)
    mask[:-1, -1], mask[-1, :-1], mask[-1, -1] = right, bottom, corner
    return mask.flatten(0, 1)
