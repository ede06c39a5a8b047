"""A degradation: film grain, noise that is strongest in the middle tones and the same in all channels."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Interval
from numpy.typing import NDArray
from torch import Tensor


class FilmGrain:
    """Single-channel Gaussian noise, multiplied by 4 v (1 - v), where v is the mean of a pixel's channels.

    It degrades training batches on the device (`degrade_batch`), and test images deterministically (`test`).

    Args:
        strength: standard deviation at middle gray, in gray levels of 255.
    """

    def __init__(self, strength: Annotated[float, Interval(ge=0, le=255)] = 20.0) -> None:
        self.strength = strength

    def test(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Degrade [H, W, C], uint8; returns float32 in [0, 1], not clamped."""
        clean = image.astype(np.float32) / 255
        tone = clean.mean(-1, keepdims=True)
        noise = np.random.RandomState(0).normal(0, self.strength / 255, tone.shape)
        return (clean + noise * 4 * tone * (1 - tone)).astype(np.float32)

    def degrade_batch(self, clean: Tensor, seeds: Sequence[int]) -> Tensor:
        """Degrade [B, C, H, W] in [0, 1]; the grain of each sample depends only on its seed."""
        tone = clean.mean(1, keepdim=True)
        generator = torch.Generator(clean.device)
        grain = [torch.randn(tone.shape[1:], generator=generator.manual_seed(seed), device=clean.device) for seed in seeds]
        return clean + torch.stack(grain) * self.strength / 255 * 4 * tone * (1 - tone)
