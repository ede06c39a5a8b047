"""Evaluate every task without a network and update docs/protocols.md: `python scripts/protocols.py [PAGE] [--tasks NAME ...]`."""

from irformer.entry import protocols

if __name__ == "__main__":
    protocols()
