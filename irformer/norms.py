"""Normalization layers with one interface: each returns the input of a residual branch and a scale for its output.

    y, scale = norm(x)            x: [B, ..., C], or [B, C, *spatial] with channels_first
    x = x + scale * branch(y)     scale None means 1

The scale is returned and never stored on the module, so a network can be deep-copied, checkpointed, compiled and called re-entrantly at
any time. Statistics are computed in float32 (float64 for float64 input) regardless of the features' dtype, and gradients flow through
them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
import torch.nn.functional as F
from annotated_types import Gt, Interval
from torch import Tensor, nn

NormOutput = tuple[Tensor, Tensor | None]
NormFactory = Callable[..., nn.Module]
Positive = Annotated[float, Gt(0)]


class _PerChannel(nn.Module):
    """A learned per-channel weight and bias [C], the base class of most norms here."""

    bias: nn.Parameter | None

    def __init__(self, dim: int, channels_first: bool, bias: bool = True) -> None:
        super().__init__()
        self.channels_first = channels_first
        self.weight = nn.Parameter(torch.ones(dim))
        self.register_parameter("bias", nn.Parameter(torch.zeros(dim)) if bias else None)

    def _affine(self, x: Tensor) -> Tensor:
        x = x * self._along(self.weight, x)
        return x if self.bias is None else x + self._along(self.bias, x)

    def _along(self, vector: Tensor, x: Tensor) -> Tensor:
        """Reshape a vector [C] so that it broadcasts over x."""
        return vector.view(-1, *[1] * (x.dim() - 2)) if self.channels_first else vector

    def _channel_axis(self) -> list[int]:
        return [1 if self.channels_first else -1]

    def _token_axes(self, x: Tensor) -> list[int]:
        return list(range(2, x.dim()) if self.channels_first else range(1, x.dim() - 1))


def _moments(x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return x in at least float32, and its variance and mean over the axes, which are kept with size 1."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    # var_mean sums pairwise. E[x^2] - mu^2 or a single running sum loses precision over the 1e7 values of a large image.
    variance, mean = torch.var_mean(wide, dim=axes, correction=0, keepdim=True)
    return wide, variance, mean


class LayerNorm(_PerChannel):
    """Per-token LayerNorm (Ba et al., arXiv 1607.06450): each token is normalized over its own channels.

    The norm of SwinIR, HAT and DRCT, and the baseline of the i-LN paper. It is not a similarity transform of the tokens: it does not
    preserve the differences between them (arXiv 2504.06629, Prop. 1). The scale is None.

    Args:
        dim: number of channels C.
        eps: added to the variance.
        channels_first: features are [B, C, *spatial] instead of [B, ..., C].
    """

    def __init__(self, dim: int, eps: Positive = 1e-5, channels_first: bool = False) -> None:
        super().__init__(dim, channels_first)
        self.eps = eps

    def forward(self, x: Tensor) -> NormOutput:
        """Normalize each token; return (y, None), where y has the shape of x."""
        if self.channels_first:
            x = x.movedim(1, -1)
        y = F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return (y.movedim(-1, 1) if self.channels_first else y), None


class BiasFreeLayerNorm(_PerChannel):
    """Restormer's LayerNorm without bias (arXiv 2111.09881, official code): x / sqrt(var + eps) * weight for each token.

    The variance is taken about the token's mean, but the mean is not subtracted. The scale is None.

    Args:
        dim: number of channels C.
        eps: added to the variance.
        channels_first: features are [B, C, *spatial] instead of [B, ..., C].
    """

    def __init__(self, dim: int, eps: Positive = 1e-5, channels_first: bool = False) -> None:
        super().__init__(dim, channels_first, bias=False)
        self.eps = eps

    def forward(self, x: Tensor) -> NormOutput:
        """Divide each token by its standard deviation; return (y, None), where y has the shape and dtype of x."""
        wide, variance, _ = _moments(x, self._channel_axis())
        return self._affine(wide / torch.sqrt(variance + self.eps)).to(x.dtype), None


class RMSNorm(_PerChannel):
    """Root mean square norm (Zhang and Sennrich, arXiv 1910.07467, Eq. 4): x / sqrt(mean(x^2) + eps) * weight for each token.

    The scale is None.

    Args:
        dim: number of channels C.
        eps: added to the mean square.
        channels_first: features are [B, C, *spatial] instead of [B, ..., C].
    """

    def __init__(self, dim: int, eps: Positive = 1e-5, channels_first: bool = False) -> None:
        super().__init__(dim, channels_first, bias=False)
        self.eps = eps

    def forward(self, x: Tensor) -> NormOutput:
        """Divide each token by its root mean square; return (y, None), where y has the shape and dtype of x."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean_square = wide.square().mean(self._channel_axis(), keepdim=True)
        return self._affine(wide / torch.sqrt(mean_square + self.eps)).to(x.dtype), None


class ILN(_PerChannel):
    """The image restoration tailored LayerNorm, i-LN (arXiv 2504.06629, Sec. 4): one mean and one variance for each image.

    y = (x - mu) / sigma * weight + bias, with mu and sigma^2 over all tokens and channels of an image. sigma = sqrt(var + eps) is
    returned as the scale of the branch's output ("input-adaptive rescaling"), so the residual block preserves the magnitude of its
    input. As eps -> 0 the block becomes equivariant: B(a x + b) = a B(x) + b for a > 0.

    Example, in any network:

    >>> import torch
    >>> from irformer.norms import ILN, Residual
    >>> block = Residual(ILN(64), torch.nn.Linear(64, 64))
    >>> block(torch.randn(2, 48, 48, 64)).shape
    torch.Size([2, 48, 48, 64])

    Args:
        dim: number of channels C.
        eps: added to the variance; 1e-4 in the official code. It bounds 1 / sigma on flat images.
        channels_first: features are [B, C, *spatial] instead of [B, ..., C].
    """

    def __init__(self, dim: int, eps: Positive = 1e-4, channels_first: bool = False) -> None:
        super().__init__(dim, channels_first)
        self.eps = eps

    def forward(self, x: Tensor) -> NormOutput:
        """Normalize each image; return y, with the shape and dtype of x, and sigma [B, 1, ..., 1] in at least float32."""
        wide, variance, mean = _moments(x, list(range(1, x.dim())))
        sigma = torch.sqrt(variance + self.eps)
        return self._affine((wide - mean) / sigma).to(x.dtype), sigma


class ILNWithoutRescale(ILN):
    """LN* of the paper's ablation (arXiv 2504.06629, Table 3): i-LN without rescaling of the branch. The scale is None.

    Args: as ILN.
    """

    def forward(self, x: Tensor) -> NormOutput:
        """Normalize each image; return (y, None), where y has the shape and dtype of x."""
        return super().forward(x)[0], None


class LayerNormRescale(LayerNorm):
    """Per-token LayerNorm with the rescaling of i-LN: the combination missing from the ablation of arXiv 2504.06629.

    Args:
        dim: number of channels C.
        eps: added to each token's variance.
        image_eps: added to the image's variance; the scale is sqrt(var + image_eps), ILN's sigma.
        channels_first: features are [B, C, *spatial] instead of [B, ..., C].
    """

    def __init__(self, dim: int, eps: Positive = 1e-5, image_eps: Positive = 1e-4, channels_first: bool = False) -> None:
        super().__init__(dim, eps, channels_first)
        self.image_eps = image_eps

    def forward(self, x: Tensor) -> NormOutput:
        """Normalize each token; return y, with the shape of x, and the image's sigma [B, 1, ..., 1] in at least float32."""
        _, variance, _ = _moments(x, list(range(1, x.dim())))
        return super().forward(x)[0], torch.sqrt(variance + self.image_eps)


class InstanceNorm(_PerChannel):
    """Instance norm (Ulyanov et al., arXiv 1607.08022): each channel of each image is normalized over its tokens, then scaled and shifted.

    The scale is None.

    Args:
        dim: number of channels C.
        eps: added to the variance.
        channels_first: features are [B, C, *spatial] instead of [B, ..., C].
    """

    def __init__(self, dim: int, eps: Positive = 1e-5, channels_first: bool = False) -> None:
        super().__init__(dim, channels_first)
        self.eps = eps

    def forward(self, x: Tensor) -> NormOutput:
        """Normalize each channel of each image; return (y, None), where y has the shape and dtype of x."""
        wide, variance, mean = _moments(x, self._token_axes(x))
        return self._affine((wide - mean) / torch.sqrt(variance + self.eps)).to(x.dtype), None


class BatchNorm(_PerChannel):
    """Batch norm (Ioffe and Szegedy, arXiv 1502.03167): each channel is normalized over all tokens of the batch, then scaled and shifted.

    In evaluation mode it uses either the statistics of the batch (the row with a dagger in Table 1 of arXiv 2504.06629) or running
    statistics. The latter are tracked and saved in both cases, so a trained network can be evaluated both ways. The scale is None.

    Args:
        dim: number of channels C.
        running: in evaluation mode, use running statistics instead of those of the batch.
        eps: added to the variance.
        momentum: weight of the current batch in the running statistics.
        channels_first: features are [B, C, *spatial] instead of [B, ..., C].
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        dim: int,
        running: bool,
        eps: Positive = 1e-5,
        momentum: Annotated[float, Interval(gt=0, le=1)] = 0.1,
        channels_first: bool = False,
    ) -> None:
        super().__init__(dim, channels_first)
        self.running = running
        self.eps = eps
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x: Tensor) -> NormOutput:
        """Normalize each channel; return (y, None), where y has the shape and dtype of x. Training updates the running statistics."""
        if self.training or not self.running:
            wide, variance, mean = _moments(x, [0, *self._token_axes(x)])
            if self.training:
                self._track(variance.detach().flatten(), mean.detach().flatten(), x.numel() // mean.numel())
        else:
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            variance, mean = self._along(self.running_var, x), self._along(self.running_mean, x)
        return self._affine((wide - mean) / torch.sqrt(variance + self.eps)).to(x.dtype), None

    def _track(self, variance: Tensor, mean: Tensor, count: int) -> None:
        """Update the running statistics; the tracked variance is the unbiased one, as in torch.nn.BatchNorm2d."""
        unbiased = variance * (count / max(count - 1, 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)


class DynamicTanh(_PerChannel):
    """Dynamic tanh, DyT (Zhu et al., "Transformers without Normalization", arXiv 2503.10622): tanh(alpha x) * weight + bias.

    alpha is a learned scalar; no statistics are computed. The scale is None.

    Args:
        dim: number of channels C.
        alpha: initial value of alpha, 0.5 in the paper.
        channels_first: features are [B, C, *spatial] instead of [B, ..., C].
    """

    def __init__(self, dim: int, alpha: Positive = 0.5, channels_first: bool = False) -> None:
        super().__init__(dim, channels_first)
        self.alpha = nn.Parameter(torch.full((1,), alpha))

    def forward(self, x: Tensor) -> NormOutput:
        """Squash each value; return (y, None), where y has the shape and dtype of x."""
        return self._affine(torch.tanh(self.alpha * x)).to(x.dtype), None


class LayerScale(LayerNorm):
    """LayerNorm with a learned per-channel scale of the branch's output (Touvron et al., CaiT, arXiv 2103.17239, Eq. 4).

    Args:
        dim: number of channels C.
        eps: added to each token's variance.
        initial: initial value of the scale; in CaiT 0.1 up to 18 blocks, 1e-5 at 24, 1e-6 for deeper networks.
        channels_first: features are [B, C, *spatial] instead of [B, ..., C].
    """

    def __init__(self, dim: int, eps: Positive = 1e-5, initial: float = 1e-5, channels_first: bool = False) -> None:
        super().__init__(dim, eps, channels_first)
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Tensor) -> NormOutput:
        """Normalize each token; return y, with the shape of x, and the scale [C], or [C, 1, ..., 1] with channels_first."""
        return super().forward(x)[0], self._along(self.gamma, x)


class ReZero(nn.Module):
    """No norm; a learned scalar, initially 0, multiplies the branch's output (Bachlechner et al., arXiv 2003.04887, Eq. 1).

    Args:
        dim: number of channels C; unused, like channels_first, and accepted only for the common interface.
    """

    def __init__(self, dim: int, channels_first: bool = False) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> NormOutput:
        """Return (x, alpha), where alpha is [1]."""
        return x, self.alpha


class NoNorm(nn.Module):
    """No norm: y = x, and the scale is None. The row `None` in Table 1 of arXiv 2504.06629.

    Args:
        dim: number of channels C; unused, like channels_first, and accepted only for the common interface.
    """

    def __init__(self, dim: int, channels_first: bool = False) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> NormOutput:
        """Return (x, None)."""
        return x, None


class Affine(_PerChannel):
    """weight * x + bias per channel, without statistics: the official i-LN networks use it instead of the norms outside the blocks.

    Outside a residual branch, normalizing and multiplying by sigma again would leave only an affine map. The scale is None.

    Args:
        dim: number of channels C.
        channels_first: features are [B, C, *spatial] instead of [B, ..., C].
    """

    def __init__(self, dim: int, channels_first: bool = False) -> None:
        super().__init__(dim, channels_first)

    def forward(self, x: Tensor) -> NormOutput:
        """Scale and shift each channel; return (y, None), where y has the shape of x."""
        return self._affine(x), None


def residual(x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
    """Return x + scale * branch(y), where y, scale = norm(x): the residual update of every block, for any norm.

    The multiplication is done in the scale's dtype (float32), and the sum keeps the dtype of x, so half-precision features stay
    half-precision.
    """
    y, scale = norm(x)
    update = branch(y)
    if scale is not None:
        update = (scale * update).to(x.dtype)
    return x + update


class Residual(nn.Module):
    """The residual block x + scale * branch(y) with y, scale = norm(x), as a module for any norm and any branch.

    Args:
        norm: a module that returns (y, scale).
        branch: a module that maps y to an update with the shape of x.
    """

    def __init__(self, norm: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """Return the updated features, with the shape and dtype of x."""
        return residual(x, self.norm, self.branch)


Ends = Literal["same", "ln", "affine", "none"]


@dataclass(frozen=True)
class NormScheme:
    """How a network is normalized: the norm of its blocks, the norm at its ends, and whether its input is standardized.

    The official i-LN networks differ from their LayerNorm baselines in all three; here each can be set separately.

    Args:
        name: the name that selects it (`norm=NAME`).
        block: builds the norm of the residual blocks from (dim, channels_first=...).
        ends: the norm after the patch embedding and before the last convolution of the body: `same` as in the blocks, `ln`,
            `affine`, or `none`. With `same`, a learned scale (LayerScale, ReZero) is unused there and gets no gradient.
        standardize_input: after subtracting the mean, divide the input by the RGB standard deviation of DIV2K, and multiply the
            output by it, as official i-LN does (its `stdnorm`).
    """

    name: str
    block: NormFactory
    ends: Ends = "same"
    standardize_input: bool = False

    def __post_init__(self) -> None:
        if self.ends not in get_args(Ends):
            raise ValueError(f"norm.ends={self.ends}: expected same, ln, affine or none")

    def end(self, dim: int, channels_first: bool = False) -> nn.Module:
        """Build the norm for one of the network's ends. It is not part of a residual branch, so its scale is unused."""
        factory: NormFactory = {"same": self.block, "ln": LayerNorm, "affine": Affine, "none": NoNorm}[self.ends]
        return factory(dim, channels_first=channels_first)
