"""Measure speed and memory on this machine: `python scripts/speed.py all`, or one of the subcommands that `--help` lists."""

from irformer.entry import speed

if __name__ == "__main__":
    speed()
