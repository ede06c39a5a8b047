"""Small networks with weights of the size that training gives them, and an image."""

import torch
from torch import Tensor, nn

from irformer import create_model
from irformer.precision import Calibration

TINY = {
    "swinir_tiny": {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2]},
    "hat_tiny": {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2]},
    "drct_tiny": {"embed_dim": 16, "growth_channels": 8, "num_heads": [2, 2]},
    "restormer_tiny": {},
}


def network(name: str = "swinir_tiny", norm: str = "ln", scale: int | None = None, **overrides) -> nn.Module:
    """A network whose biases and norms differ from their initial 0 and 1."""
    torch.manual_seed(0)
    built = create_model(name, norm, scale, overrides={**TINY[name], **overrides}).eval()
    for parameter in built.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return built


def image(height: int = 21, width: int = 26) -> Tensor:
    """An image [1, 3, H, W]; no window divides its sides."""
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def restored(net: nn.Module, x: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return net(image() if x is None else x)


def psnr(found: Tensor, expected: Tensor) -> float:
    """PSNR in dB of images in [0, 1]."""
    return float(-10 * torch.log10((found.double() - expected.double()).square().mean()))


CALIBRATION = Calibration(("noise",), (torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(2)),))
