"""The normalization layers."""

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt, Interval
from torch import Tensor, nn

from irformer.norms.moments import Moments, apply_moments, moments, normalize, widened

NormOutput = tuple[Tensor, Tensor | None]
NormFactory = Callable[..., nn.Module]
Positive = Annotated[float, Gt(0)]


class _PerChannel(nn.Module):
    """A learned per-channel weight and bias [C], the base class of most norms here."""

    bias: nn.Parameter | None
    eps: float

    def __init__(self, dim: int, channels_first: bool, bias: bool = True) -> None:
        super().__init__()
        self.channels_first = channels_first
        self.weight = nn.Parameter(torch.ones(dim))
        self.register_parameter("bias", nn.Parameter(torch.zeros(dim)) if bias else None)

    def shared_axes(self, dims: int) -> list[int]:
        """Return the axes over which the values of features share statistics; empty if each token is normalized on its own.

        Args:
            dims: number of dimensions of the features.
        """
        return []

    def forward_with(self, x: Tensor, statistics: Moments) -> NormOutput:
        """Return what `forward` returns for these rows of an image, given the moments of the whole image.

        Args:
            x: features: some rows of an image, or all.
            statistics: moments over `shared_axes`, with these axes kept as size 1; the other sizes are those of x.
        """
        raise NotImplementedError(f"{type(self).__name__} has no statistics that tokens share")

    def _affine(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return torch.addcmul(self._along(self.bias, x), x, self._along(self.weight, x))

    def _normalize(self, x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
        """Return (x - mean) / deviation * weight + bias with the moments of x over some axes, and the deviation."""
        assert self.bias is not None
        if self.channels_first and not torch.compiler.is_compiling() and x.movedim(1, -1).is_contiguous():
            # In the memory format torch.channels_last, the kernels for [B, ..., C] apply; they are faster, as are convolutions.
            last = [0 if axis == 0 else (axis - 2) % (x.dim() - 1) + 1 for axis in axes]
            y, deviation = normalize(x.movedim(1, -1), self.weight, self.bias, self.eps, last)
            return y.movedim(-1, 1), deviation.movedim(-1, 1)
        return normalize(x, self._along(self.weight, x), self._along(self.bias, x), self.eps, axes)

    def _normalize_with(self, x: Tensor, statistics: Moments) -> tuple[Tensor, Tensor]:
        """Return what `_normalize` returns, given the moments."""
        assert self.bias is not None
        deviation = torch.sqrt(statistics.variance + self.eps)
        return apply_moments(x, statistics.mean, deviation, self._along(self.weight, x), self._along(self.bias, x)), deviation

    def _along(self, vector: Tensor, x: Tensor) -> Tensor:
        """Reshape a vector [C] so that it broadcasts over x."""
        return vector.view(-1, *[1] * (x.dim() - 2)) if self.channels_first else vector

    def _channel_axis(self, x: Tensor) -> list[int]:
        return [1 if self.channels_first else x.dim() - 1]

    def _token_axes(self, dims: int) -> list[int]:
        return list(range(2, dims) if self.channels_first else range(1, dims - 1))


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
        variance = moments(x, self._channel_axis(x)).variance
        return (widened(x) * (self._along(self.weight, x) / torch.sqrt(variance + self.eps))).to(x.dtype), None


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
        wide = widened(x)
        mean_square = wide.square().mean(self._channel_axis(x), keepdim=True)
        return (wide * (self._along(self.weight, x) / torch.sqrt(mean_square + self.eps))).to(x.dtype), None


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
        return self._normalize(x, self.shared_axes(x.dim()))

    def shared_axes(self, dims: int) -> list[int]:
        """Return all axes except the first."""
        return list(range(1, dims))

    def forward_with(self, x: Tensor, statistics: Moments) -> NormOutput:
        """Normalize some rows of each image with the moments of the whole image."""
        return self._normalize_with(x, statistics)


class ILNWithoutRescale(ILN):
    """LN* of the paper's ablation (arXiv 2504.06629, Table 3): i-LN without rescaling of the branch. The scale is None.

    Args: as ILN.
    """

    def forward(self, x: Tensor) -> NormOutput:
        """Normalize each image; return (y, None), where y has the shape and dtype of x."""
        return super().forward(x)[0], None

    def forward_with(self, x: Tensor, statistics: Moments) -> NormOutput:
        """Normalize some rows of each image with the moments of the whole image."""
        return super().forward_with(x, statistics)[0], None


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
        return self.forward_with(x, moments(x, self.shared_axes(x.dim())))

    def shared_axes(self, dims: int) -> list[int]:
        """Return all axes except the first."""
        return list(range(1, dims))

    def forward_with(self, x: Tensor, statistics: Moments) -> NormOutput:
        """Normalize each token; return it with the sigma of the whole image."""
        return super().forward(x)[0], torch.sqrt(statistics.variance + self.image_eps)


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
        return self._normalize(x, self.shared_axes(x.dim()))[0], None

    def shared_axes(self, dims: int) -> list[int]:
        """Return the axes of the tokens."""
        return self._token_axes(dims)

    def forward_with(self, x: Tensor, statistics: Moments) -> NormOutput:
        """Normalize some rows of each image with the moments of the whole image."""
        return self._normalize_with(x, statistics)[0], None


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
        axes = [0, *self._token_axes(x.dim())]
        if self.training:
            batch = moments(x.detach(), axes)
            self._track(batch.variance.flatten(), batch.mean.flatten(), x.numel() // batch.mean.numel())
        if self.training or not self.running:
            return self._normalize(x, axes)[0], None
        assert self.bias is not None
        deviation = torch.sqrt(self.running_var + self.eps)
        vectors = (self._along(vector, x) for vector in (self.running_mean, deviation, self.weight, self.bias))
        return apply_moments(x, *vectors), None

    def shared_axes(self, dims: int) -> list[int]:
        """Return the axes of the batch and the tokens; none in evaluation mode with running statistics."""
        return [0, *self._token_axes(dims)] if self.training or not self.running else []

    def forward_with(self, x: Tensor, statistics: Moments) -> NormOutput:
        """Normalize some rows of each image with the moments of the whole batch."""
        return self._normalize_with(x, statistics)[0], None

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

    def shared_axes(self, dims: int) -> list[int]:
        """Return no axes: nothing is normalized."""
        return []


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

    def shared_axes(self, dims: int) -> list[int]:
        """Return no axes: nothing is normalized."""
        return []


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
