"""The base class of metrics, and metric traits that can be saved without code."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class MetricTraits:
    """Properties of a metric for tables and comparisons, recorded in results.json.

    Args:
        higher_is_better: whether higher values are better.
        digits: decimals in tables.
        unit: unit of the values, such as dB; empty for a plain number.
    """

    higher_is_better: bool = True
    digits: int = 4
    unit: str = ""


class Metric(ABC):
    """Base class of metrics, which compare a restored image with the ground truth.

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
        name: name of the metric in messages, by default the name of the class. Tables and results.json use the name that the
            configuration gives it.
        higher_is_better: whether higher values are better. The first metric of the protocol selects the best checkpoint.
        digits: decimals in tables, 0 to 10.
        unit: unit of the values, such as dB; empty for a plain number.
        channels: accepted numbers of image channels: 3 for RGB, 1 for gray.
        smallest_side: height and width in pixels of the smallest image that the metric accepts, without the border.
        on_y: whether to measure the Y channel of RGB images: `__call__` receives float64 [H, W, 1] in the range 16 to 235, computed by the
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
        """Name of the metric in messages."""
        return type(self).__name__

    @property
    def traits(self) -> MetricTraits:
        """Traits of the metric, as recorded in results.json."""
        return MetricTraits(self.higher_is_better, self.digits, self.unit)

    @abstractmethod
    def __call__(self, restored: NDArray[Any], truth: NDArray[Any]) -> float:
        """Measure one image.

        Args:
            restored: uint8 [H, W, C], RGB or gray, without the border; float64 [H, W, 1] if `on_y`.
            truth: ground truth of the same shape and type.
        """
