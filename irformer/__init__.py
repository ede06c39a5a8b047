"""irformer: train, evaluate and look inside image restoration transformers, with any normalization."""

__version__ = "0.1.0"
