"""Networks in lower precision: half precision, fake quantization, and the same network with a scaled residual stream."""

from irformer.precision.quantization import Calibration
from irformer.precision.reduced import LARGEST_HALF, PRECISIONS, Precision, PrecisionRecord, Reduced, in_precision
from irformer.precision.scaled_stream import scale_stream

__all__ = ["LARGEST_HALF", "PRECISIONS", "Calibration", "Precision", "PrecisionRecord", "Reduced", "in_precision", "scale_stream"]
