"""The version of irformer."""

__version__ = "0.1.0"
