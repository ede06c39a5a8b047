"""A metric: the error of the differences between neighboring pixels, in gray levels. Lower is better."""

import numpy as np
from numpy.typing import NDArray

from irformer.metrics import Metric


class EdgeError(Metric):
    """Mean absolute error of the differences between neighboring pixels, along both axes."""

    higher_is_better = False
    digits = 2
    unit = "gray levels"
    smallest_side = 2

    def __call__(self, restored: NDArray, truth: NDArray) -> float:
        """Measure one image: uint8 [H, W, C]."""
        error = restored.astype(np.float64) - truth.astype(np.float64)
        return float(np.mean([np.abs(np.diff(error, axis=axis)).mean() for axis in (0, 1)]))
