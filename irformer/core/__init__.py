"""Utilities that every package may import."""
