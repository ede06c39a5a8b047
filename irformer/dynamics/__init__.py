"""Training dynamics: feature statistics, the probe that computes them during training, and figures."""
