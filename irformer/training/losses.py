"""Losses between restored and clean images [B, C, H, W] in [0, 1].

Each is a mean over all pixels and channels, so its magnitude does not depend on the batch and patch size. L1 and the mean squared error are
PyTorch's own.
"""

from collections.abc import Mapping
from typing import Annotated, TypedDict

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from irformer.errors import UserError


class Charbonnier(nn.Module):
    """sqrt(d^2 + eps) of the difference d, a smooth L1 (Charbonnier et al., ICIP 1994): SwinIR's loss for denoising and JPEG artifacts.

    Args:
        eps: added under the root, 1e-9 in SwinIR's training code (KAIR); papers that write sqrt(d^2 + e^2) mean eps = e^2.
    """

    def __init__(self, eps: Annotated[float, Gt(0)] = 1e-9) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Return a scalar."""
        return torch.sqrt((restored - clean).square() + self.eps).mean()


class FFT(nn.Module):
    """L1 between the real and imaginary parts of the 2D Fourier transforms (MIMO-UNet, arXiv 2108.05054).

    The transform is not normalized, as in the paper: with a weight of about 0.1 it contributes as much as the L1 of the images.
    """

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Return a scalar."""
        return torch.view_as_real(torch.fft.fft2(restored) - torch.fft.fft2(clean)).abs().mean()


class SSIM(nn.Module):
    """1 - SSIM with an 11x11 Gaussian window of sigma 1.5 (Wang et al., TIP 2004), averaged over channels, with reflected borders.

    For training only: results are measured by `irformer.metrics`, which excludes the borders as published tables do.
    """

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Return a scalar; each side of the images must have more than 5 pixels."""
        similarity = structural_similarity_index_measure(restored, clean, gaussian_kernel=True, sigma=1.5, data_range=1.0)
        assert isinstance(similarity, Tensor)
        return 1 - similarity


class Part(TypedDict):
    """One term of a weighted sum."""

    weight: float
    loss: nn.Module


class WeightedSum(nn.Module):
    """A weighted sum of losses, with each term logged by name.

    Args:
        parts: weight and loss of each term, by name.

    Raises:
        UserError: a term lacks its weight or loss, or there are no terms.
    """

    def __init__(self, parts: Mapping[str, Part]) -> None:
        super().__init__()
        for name, part in parts.items():
            if set(part) != {"weight", "loss"}:
                raise UserError(f"loss.parts.{name}: expected weight and loss, found {', '.join(part) or 'nothing'}")
        if not parts:
            raise UserError("loss.parts: empty; expected at least one loss")
        self.weights = {name: float(part["weight"]) for name, part in parts.items()}
        self.losses = nn.ModuleDict({name: part["loss"] for name, part in parts.items()})

    def parts(self, restored: Tensor, clean: Tensor) -> dict[str, Tensor]:
        """Return the unweighted terms by name."""
        return {name: loss(restored, clean) for name, loss in self.losses.items()}

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the terms."""
        return torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Return a scalar."""
        return self.total(self.parts(restored, clean))
