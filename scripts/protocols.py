"""Measure every task without a network into docs/protocols.md: python scripts/protocols.py [PAGE], or --tasks NAME ...."""

from irformer.entry import protocols

if __name__ == "__main__":
    protocols()
