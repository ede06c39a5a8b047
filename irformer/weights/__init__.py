"""Weights files: reading, recognizing, building and exporting networks."""
