"""Experiments that reproduce the claims of the i-LN paper."""
