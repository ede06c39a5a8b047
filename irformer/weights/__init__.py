"""Weights files: reading, recognising, building and exporting networks."""
