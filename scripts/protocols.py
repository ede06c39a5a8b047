"""Measure every task without a network into docs/protocols.md: python scripts/protocols.py [PAGE], or --tasks NAME ...."""

from irformer.entry import entry

if __name__ == "__main__":
    entry("irformer.commands.protocols:protocols")
