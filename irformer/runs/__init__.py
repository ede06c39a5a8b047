"""Finished and interrupted runs: resuming, sweeps, arms and comparisons."""
