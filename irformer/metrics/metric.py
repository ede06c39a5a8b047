"""The base class of metrics, and what is known of a metric without its code."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class MetricTraits:
    """What tables and comparisons know of a metric without its code; results.json records it.

    Args:
        higher_is_better: the direction.
        digits: decimals in tables.
        unit: of the values, such as dB; empty for a plain number.
    """

    higher_is_better: bool = True
    digits: int = 4
    unit: str = ""


class Metric(ABC):
    """A number that compares a restored image with the true one. Built-in metrics and those of other packages derive from it.

    A subclass sets `higher_is_better` and implements `__call__`. All other attributes have defaults. They can be class attributes or be
    set by the constructor, whose arguments are the keys of `metrics.NAME` in the configuration:

        class EdgeError(Metric):
            higher_is_better = False
            digits = 2
            unit = "gray levels"
            smallest_side = 2

            def __call__(self, restored, truth):
                a, b = (np.diff(image.astype(np.float64), axis=0) for image in (restored, truth))
                return float(np.abs(a - b).mean())

    `+metrics.edge._target_=my.pkg.EdgeError` adds it to a run or a benchmark as `edge`. The object may be sent to other processes, so it
    must support pickle. It must not change the images.

    Attributes:
        name: how the metric is called in messages; the class's name by default. Tables and results.json use the name that the
            configuration gives it.
        higher_is_better: the direction. Where the metric is the first of the protocol, it decides which checkpoint is best.
        digits: decimals in tables, 0 to 10.
        unit: of the values, such as dB; empty for a plain number.
        channels: the numbers of image channels that it accepts: 3 for RGB, 1 for gray.
        smallest_side: height and width in pixels, within the border, of the smallest image that it measures.
        on_y: measure the Y channel of RGB images: `__call__` receives float64 [H, W, 1] in the range 16 to 235, computed by the
            protocol's rule, instead of uint8 [H, W, C].
    """

    higher_is_better: bool
    digits: int = 4
    unit: str = ""
    channels: tuple[int, ...] = (1, 3)
    smallest_side: int = 1
    on_y: bool = False

    @property
    def name(self) -> str:
        """How the metric is called in messages."""
        return type(self).__name__

    @property
    def traits(self) -> MetricTraits:
        """What results.json records of the metric."""
        return MetricTraits(self.higher_is_better, self.digits, self.unit)

    @abstractmethod
    def __call__(self, restored: NDArray[Any], truth: NDArray[Any]) -> float:
        """Measure one image.

        Args:
            restored: uint8 [H, W, C], RGB or gray, without the border; float64 [H, W, 1] if `on_y`.
            truth: the same shape and type.
        """
