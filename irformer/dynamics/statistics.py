"""Statistics of a feature map, each one number for a batch. Features are [B, ..., C], any float type; sums are float32."""

from collections.abc import Callable

import torch
from torch import Tensor


def mean_square(features: Tensor) -> Tensor:
    """Feature magnitude: the mean of the squared features over images, tokens and channels (arXiv 2504.06629, Fig. 1a). No unit."""
    return features.float().square().mean()


def max_abs(features: Tensor) -> Tensor:
    """The largest absolute value; float16 ends at 65504."""
    return features.float().abs().max()


def channel_entropy(features: Tensor) -> Tensor:
    """Channel entropy in nats: 0 when one channel holds everything, ln C when all channels hold the same.

    H = - sum_c p_c ln p_c for each token, with the shares p_c = |x_c| / sum_k |x_k|, then the mean over tokens and images. The paper
    (Fig. 1b) gives no formula; these shares give 4.91 nats for Gaussian features of 180 channels, where its i-LN plane lies.
    """
    magnitude = features.float().abs()
    shares = magnitude / magnitude.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.special.entr(shares).sum(-1).mean()


STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean_square": mean_square,
    "max_abs": max_abs,
    "channel_entropy": channel_entropy,
}
