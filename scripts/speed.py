"""Measure speed and memory on this machine: `python scripts/speed.py data|memory`."""

from irformer.entry import speed

if __name__ == "__main__":
    speed()
