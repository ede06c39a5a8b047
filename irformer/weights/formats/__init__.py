"""Official layouts of weights: which network, of what sizes and with which norm, read from names and shapes; and written again."""

from irformer.weights.formats.layouts import describe, official_weights, our_names, recognise

__all__ = ["describe", "official_weights", "our_names", "recognise"]
