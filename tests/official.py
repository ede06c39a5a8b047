"""Official networks with random weights, and small ones of ours: what the tests of checkpoints and of exports share."""

import torch
from spandrel.architectures.DRCT import DRCT as OfficialDRCT  # noqa: N811 (a class)
from spandrel.architectures.HAT import HAT as OfficialHAT  # noqa: N811 (a class)
from spandrel.architectures.SwinIR import SwinIR as OfficialSwinIR
from torch import nn

from irformer import create_model
from irformer.models import DRCT

TINY = {"embed_dim": 12, "num_heads": [2, 3], "window_size": 8, "img_size": 64}
# Official networks with all that weights say set to something unusual: the class, its arguments.
OFFICIAL = {
    "swinir_classical_x2": (OfficialSwinIR, {**TINY, "depths": [2, 1], "upscale": 2, "upsampler": "pixelshuffle", "mlp_ratio": 1.5}),
    "swinir_classical_x3": (OfficialSwinIR, {**TINY, "depths": [2, 2], "upscale": 3, "upsampler": "pixelshuffle", "mlp_ratio": 2.0}),
    "swinir_light_x4": (OfficialSwinIR, {**TINY, "depths": [1, 2], "upscale": 4, "upsampler": "pixelshuffledirect", "qkv_bias": False}),
    "swinir_large_x4": (OfficialSwinIR, {**TINY, "depths": [2, 2], "upscale": 4, "upsampler": "nearest+conv", "resi_connection": "3conv"}),
    "swinir_noise_gray": (
        OfficialSwinIR,
        {**TINY, "depths": [2, 2], "upscale": 1, "upsampler": "", "in_chans": 1, "img_size": 128, "mlp_ratio": 2.0},
    ),
    "swinir_jpeg": (
        OfficialSwinIR,
        {**TINY, "depths": [2, 2], "upscale": 1, "upsampler": "", "window_size": 7, "img_size": 126, "img_range": 255.0, "mlp_ratio": 2.0},
    ),
    "hat_x4": (
        OfficialHAT,
        {**TINY, "depths": [2, 1], "upscale": 4, "upsampler": "pixelshuffle", "compress_ratio": 4, "squeeze_factor": 5, "mlp_ratio": 2.0},
    ),
    "hat_x2": (
        OfficialHAT,
        {
            **TINY,
            "depths": [1, 2],
            "upscale": 2,
            "upsampler": "pixelshuffle",
            "overlap_ratio": 0.25,
            "resi_connection": "identity",
            "squeeze_factor": 6,
            "qkv_bias": False,
        },
    ),
    "drct_x2": (
        OfficialDRCT,
        {**TINY, "num_heads": [2, 2], "depths": [6, 6], "upscale": 2, "upsampler": "pixelshuffle", "gc": 4, "mlp_ratio": 2.0},
    ),
}

# The networks that the official test script of SwinIR builds, by its --task: the key that it reads from the file, what it takes from the
# command line, and what it gives to the constructor. Depths and widths are smaller here; the test script's other values are kept.
_SMALL = {"depths": [2, 2], "embed_dim": 12, "num_heads": [2, 2], "mlp_ratio": 2}
_SR, _IMAGE = {"img_range": 1.0, "window_size": 8}, {"upscale": 1, "upsampler": "", "resi_connection": "1conv"}
_JPEG = {**_IMAGE, "img_size": 126, "window_size": 7, "img_range": 255.0}
_CLASSICAL = {**_SR, "upsampler": "pixelshuffle", "resi_connection": "1conv"}
_REAL = {**_SR, "upscale": 4, "img_size": 64, "upsampler": "nearest+conv"}
SWINIR_SCRIPT: dict[str, tuple[str, dict]] = {
    **{
        f"classical_sr x{scale} s{size}": ("params", {**_CLASSICAL, "upscale": scale, "img_size": size})
        for scale in (2, 3, 4, 8)
        for size in (48, 64)
    },
    **{
        f"lightweight_sr x{scale}": (
            "params",
            {**_SR, "upscale": scale, "img_size": 64, "upsampler": "pixelshuffledirect", "resi_connection": "1conv"},
        )
        for scale in (2, 3, 4)
    },
    "real_sr": ("params_ema", {**_REAL, "resi_connection": "1conv"}),
    "real_sr large": ("params_ema", {**_REAL, "resi_connection": "3conv", "depths": [2, 2, 2], "num_heads": [2, 2, 2]}),
    "gray_dn": ("params", {**_SR, **_IMAGE, "in_chans": 1, "img_size": 128}),
    "color_dn": ("params", {**_SR, **_IMAGE, "in_chans": 3, "img_size": 128}),
    "jpeg_car": ("params", {**_JPEG, "in_chans": 1}),
    "color_jpeg_car": ("params", {**_JPEG, "in_chans": 3}),
}


def swinir_of_script(task: str) -> nn.Module:
    """The network that SwinIR's test script builds for a task, with random weights."""
    return _random(OfficialSwinIR, {**_SMALL, **SWINIR_SCRIPT[task][1]})


def official(name: str) -> nn.Module:
    """An official network with weights that are all random, so that nothing is compared at its trivial start."""
    return _random(*OFFICIAL[name])


def _random(kind: type[nn.Module], arguments: dict) -> nn.Module:
    torch.manual_seed(0)
    network = kind(**arguments).eval()
    for parameter in network.parameters():
        parameter.data += 0.03 * torch.randn(parameter.shape)
    return network


def assert_same_output(found: nn.Module, expected, channels: int = 3) -> None:
    size = (16, 32) if isinstance(found, DRCT) else (17, 26)  # the official DRCT does not pad
    x = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = found(x), expected(x)
    assert a.shape == b.shape
    assert ((a - b).abs().max() / b.abs().max()).item() <= 1e-5


def small(name: str, norm: str = "ln", scale: int | None = None, **overrides) -> nn.Module:
    """One of our networks, tiny, with random weights."""
    torch.manual_seed(0)
    sizes = {
        "swinir": {"embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2]},
        "hat": {"embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 8, "compress_ratio": 4, "squeeze_factor": 4},
        "drct": {"embed_dim": 12, "growth_channels": 4, "num_heads": [2, 2], "window_size": 8},
        "restormer": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1},
    }[name]
    network = create_model(name, norm, scale, overrides={**sizes, **overrides}).eval()
    for parameter in network.parameters():
        parameter.data += 0.03 * torch.randn(parameter.shape)
    return network
