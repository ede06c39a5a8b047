"""Normalizations behind one interface: what a residual branch reads, and what the branch's output is multiplied by.

    y, scale = norm(x)            x: [B, ..., C], or [B, C, *spatial] with channels_first
    x = x + scale * branch(y)     scale None means 1

The scale is returned and never kept on the module, so that a network can be deep-copied, checkpointed, compiled and called
re-entrantly at any time. Statistics are taken in float32 (float64 for float64 input) whatever the features' type, and gradients flow
through them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormOutput = tuple[Tensor, Tensor | None]
NormFactory = Callable[..., nn.Module]


class LayerNorm(nn.Module):
    """Per-token LayerNorm (Ba et al., arXiv 1607.06450): each token is normalized over its own channels.

    The norm of SwinIR, HAT and DRCT, and the paper's baseline. It is not a similarity transform of the token cloud: differences
    between tokens are not kept (arXiv 2504.06629, Prop. 1). The scale is None.

    Args:
        dim: number of channels C.
        eps: added to the variance.
        channels_first: features are [B, C, *spatial] in place of [B, ..., C].
    """

    def __init__(self, dim: int, eps: float = 1e-5, channels_first: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.channels_first = channels_first
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> NormOutput:
        """Normalize every token; returns (y, None), y of x's shape."""
        if self.channels_first:
            x = x.movedim(1, -1)
        y = F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return (y.movedim(-1, 1) if self.channels_first else y), None


class ILN(nn.Module):
    """The image restoration tailored LayerNorm, i-LN (arXiv 2504.06629, Sec. 4): one mean and one variance for each image.

    y = (x - mu) / sigma * weight + bias, mu and sigma^2 over all tokens and channels of an image; sigma = sqrt(var + eps) is returned
    as the scale of the branch's output ("input-adaptive rescaling"), so that the residual block keeps the magnitude of what it read.
    With eps -> 0 the block is equivariant: B(a x + b) = a B(x) + b for a > 0.

    Example, in somebody else's network:

    >>> import torch
    >>> from irformer.norms import ILN, Residual
    >>> block = Residual(ILN(64), torch.nn.Linear(64, 64))
    >>> block(torch.randn(2, 48, 48, 64)).shape
    torch.Size([2, 48, 48, 64])

    Args:
        dim: number of channels C.
        eps: added to the variance; 1e-4 in the official code. It bounds the normalizer on flat images.
        channels_first: features are [B, C, *spatial] in place of [B, ..., C].
    """

    def __init__(self, dim: int, eps: float = 1e-4, channels_first: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.channels_first = channels_first
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> NormOutput:
        """Normalize every image; returns y of x's shape and type, and sigma [B, 1, ..., 1] in at least float32."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # var_mean takes its sums pairwise; E[x^2] - mu^2 or one running sum loses digits over the 1e7 values of a large image.
        variance, mean = torch.var_mean(wide, dim=list(range(1, x.dim())), correction=0, keepdim=True)
        sigma = torch.sqrt(variance + self.eps)
        y = (wide - mean) / sigma
        y = _affine(y, self.weight, self.bias, self.channels_first)
        return y.to(x.dtype), sigma


class Affine(nn.Module):
    """weight * x + bias per channel, no statistics: what the official i-LN networks put in place of the norms outside the blocks.

    A norm, an affine map and the multiplication by sigma again are together just an affine map. The scale is None.

    Args:
        dim: number of channels C.
        channels_first: features are [B, C, *spatial] in place of [B, ..., C].
    """

    def __init__(self, dim: int, channels_first: bool = False) -> None:
        super().__init__()
        self.channels_first = channels_first
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> NormOutput:
        """Scale and shift every channel; returns (y, None), y of x's shape."""
        return _affine(x, self.weight, self.bias, self.channels_first), None


def _affine(x: Tensor, weight: Tensor, bias: Tensor, channels_first: bool) -> Tensor:
    """weight * x + bias, weight and bias [C] laid along the channel axis of x."""
    if channels_first:
        shape = (-1, *[1] * (x.dim() - 2))
        weight, bias = weight.view(shape), bias.view(shape)
    return x * weight + bias


def residual(x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
    """x + scale * branch(y), where y, scale = norm(x): the residual update of every block, whatever the norm.

    The scale multiplies in its own type (float32) and the sum keeps x's type, so that a half-precision stream is not widened.
    """
    y, scale = norm(x)
    update = branch(y)
    if scale is not None:
        update = (scale * update).to(x.dtype)
    return x + update


class Residual(nn.Module):
    """The residual block x + scale * branch(y) with y, scale = norm(x), as a module: any norm of this file around any branch.

    Args:
        norm: a module that returns (y, scale).
        branch: a module from y to an update of x's shape.
    """

    def __init__(self, norm: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """Return the updated features, of x's shape and type."""
        return residual(x, self.norm, self.branch)


Ends = Literal["same", "ln", "affine"]


@dataclass(frozen=True)
class NormScheme:
    """How a network is normalized: the norm of its blocks, what stands at its ends, and whether its input is standardised.

    The official i-LN networks differ from their LayerNorm baselines in all three; here each is a switch of its own.

    Args:
        name: the word that selects it (`norm=NAME`).
        block: builds the norm of the residual blocks from (dim, channels_first=...).
        ends: what stands after the patch embedding and before the last convolution of the body: `same` as in the blocks, `ln` or `affine`.
        standardize_input: divide the input by the RGB standard deviation of DIV2K after its mean is taken off, and multiply the
            output by it, as official i-LN (its `stdnorm`).
    """

    name: str
    block: NormFactory
    ends: Ends = "same"
    standardize_input: bool = False

    def __post_init__(self) -> None:
        if self.ends not in ("same", "ln", "affine"):
            raise ValueError(f"norm.ends={self.ends}: expected same, ln or affine")

    def end(self, dim: int, channels_first: bool = False) -> nn.Module:
        """Build the norm that stands at one of the network's ends. It closes no residual branch, so that its scale is not used."""
        factory: NormFactory = {"same": self.block, "ln": LayerNorm, "affine": Affine}[self.ends]
        return factory(dim, channels_first=channels_first)
