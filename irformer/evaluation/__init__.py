"""Restoring images with a network and measuring the results."""
