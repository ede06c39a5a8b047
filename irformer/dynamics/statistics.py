"""Statistics of a feature map, defined once for training, inspection and the experiments.

Features are [B, ..., C] of any floating-point dtype: B images, tokens (pixels) along the axes between, and C channels. Sums are float32.
Each statistic is for the whole batch. The docstrings give their values for unit normal features: independent N(0, 1) values, in the limit
of many tokens. Statistics of features that are all zero are 0 unless stated otherwise.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny


def mean_square(features: Tensor) -> Tensor:
    """Feature magnitude: the mean of x^2 over images, tokens and channels (arXiv 2504.06629, Fig. 1a). Unit normal: 1."""
    return features.float().square().mean()


def max_abs(features: Tensor) -> Tensor:
    """The largest |x|; the largest float16 is 65504. Unit normal: about sqrt(2 ln n) for n values, for example 4.9 for a million."""
    return features.float().abs().max()


def kurtosis(features: Tensor) -> Tensor:
    """E[(x - m)^4] / E[(x - m)^2]^2 over all images, tokens and channels, where m is the mean of all values. Unit normal: 3.

    A few large channels among many small ones raise it: with one channel of C far above the others, it approaches C.
    """
    centered = features.float() - features.float().mean()
    # Divided before the fourth power is taken, which would overflow for features above 4e9.
    variance = centered.square().mean()
    return (centered.square() / variance.clamp_min(_TINY)).square().mean()


def channel_energy(features: Tensor) -> Tensor:
    """The energy of each channel: the mean of x_c^2 over images and tokens, a vector [C]. Unit normal: 1 each."""
    return features.float().square().flatten(0, -2).mean(0)


def top1_share(features: Tensor) -> Tensor:
    """Share of the strongest channel in the sum of all channels' energy. Unit normal: 1 / C."""
    return _top_share(features, 1)


def top5_share(features: Tensor) -> Tensor:
    """Share of the five strongest channels in the sum of all channels' energy. Unit normal: 5 / C; 1 if there are at most five."""
    return _top_share(features, 5)


def channel_entropy(features: Tensor) -> Tensor:
    """Entropy of the shares of |x| in a token, averaged over tokens and images, in nats.

    H = - sum_c p_c ln p_c with p_c = |x_c| / sum_k |x_k|: 0 if a single channel is nonzero, ln C if all have the same magnitude. Unit
    normal: ln C - 0.284 for many channels, for example 4.91 for 180. The paper (arXiv 2504.06629, Fig. 1b) gives no formula; this one
    agrees with the i-LN surface in its figure.
    """
    magnitude = features.float().abs()
    return _entropy(magnitude / magnitude.sum(-1, keepdim=True).clamp_min(_TINY))


def softmax_entropy(features: Tensor) -> Tensor:
    """Entropy of the softmax of |x| in a token, averaged over tokens and images, in nats.

    H = - sum_c p_c ln p_c with p_c = exp |x_c| / sum_k exp |x_k|. Unlike the other entropies, it depends on the features' magnitude: it is
    ln C for small features of any distribution, and 0 where one channel exceeds all others by far more than 1. Unit normal: ln C - 0.267
    for many channels, for example 4.93 for 180. Features that are all zero: ln C.
    """
    return _entropy(features.float().abs().softmax(-1))


def energy_entropy(features: Tensor) -> Tensor:
    """Entropy of the channels' shares of the energy, averaged over tokens and images before the entropy is taken, in nats.

    H = - sum_c p_c ln p_c with p_c = e_c / sum_k e_k, where e_c is `channel_energy`: 0 if a single channel is nonzero, ln C if all have the
    same energy. Unit normal: ln C. It sees which channels are strong everywhere, not which are strong in a token.
    """
    return _entropy(_energy_shares(features))


def _energy_shares(features: Tensor) -> Tensor:
    energy = channel_energy(features)
    return energy / energy.sum().clamp_min(_TINY)


def _top_share(features: Tensor, count: int) -> Tensor:
    shares = _energy_shares(features)
    return shares.topk(min(count, len(shares))).values.sum()


def _entropy(shares: Tensor) -> Tensor:
    return torch.special.entr(shares).sum(-1).mean()


STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean_square": mean_square,
    "max_abs": max_abs,
    "kurtosis": kurtosis,
    "top1_share": top1_share,
    "top5_share": top5_share,
    "channel_entropy": channel_entropy,
    "softmax_entropy": softmax_entropy,
    "energy_entropy": energy_entropy,
}
