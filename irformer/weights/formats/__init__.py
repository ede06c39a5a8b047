"""Official weights layouts: recognize a network, its sizes and its norm from names and shapes, and write its weights."""

from irformer.weights.formats.layouts import describe, official_weights, our_names, recognize

__all__ = ["describe", "official_weights", "our_names", "recognize"]
