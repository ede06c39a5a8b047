"""Callbacks that run around training steps."""
