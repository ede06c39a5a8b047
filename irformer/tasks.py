"""A task: what is done to clean images, how results are measured, and on which test sets.

A task fixes everything that a published number depends on, so that a number means the same in validation, in the benchmark and in a table.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from irformer.degradations import Degradation
from irformer.metrics import METRICS

Padding = Literal["network", "flip_always", "reflect_min"]


@dataclass(frozen=True)
class Protocol:
    """How an image is restored and measured.

    Args:
        lr: which imresize makes LR images that are not on disk: `matlab_uint8` (published tables) or `matlab_double` (i-LN's data).
        border: pixels left out on each side of the HQ image before measuring; the scale in super-resolution.
        padding: before the network: `flip_always` mirrors up to the next multiple of the window, a whole window where the size fits
            already (SwinIR's test code, behind its tables); `reflect_min` reflects where the size does not fit (HAT, BasicSR,
            Restormer); `network` is whichever of the two the network's own published numbers were measured with.
        metrics: names of metrics, the first decides which checkpoint is best.
    """

    lr: str
    border: int
    padding: Padding
    metrics: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(self.metrics))
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown:
            raise ValueError(f"task.protocol.metrics: unknown {', '.join(unknown)}; known: {', '.join(METRICS)}")
        if self.padding not in get_args(Padding):
            raise ValueError(f"task.protocol.padding={self.padding}: expected {', '.join(get_args(Padding))}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for results.json."""
        return {**asdict(self), "metrics": list(self.metrics)}


@dataclass(frozen=True)
class Task:
    """A restoration task.

    Args:
        name: the word that selects it (`task=NAME`).
        scale: HQ pixels for each LQ pixel, 1 where the size is kept.
        channels: 3 for RGB.
        degradation: clean image to degraded image.
        protocol: how results are measured.
        test_sets: names of the test sets that papers report for it.
    """

    name: str
    scale: int
    channels: int
    degradation: Degradation
    protocol: Protocol
    test_sets: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "test_sets", tuple(self.test_sets))

    def crop_to_scale(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The largest part of [H, W, C], from the top left, whose sides are multiples of the scale (modcrop)."""
        height, width = image.shape[:2]
        return image[: height - height % self.scale, : width - width % self.scale]
