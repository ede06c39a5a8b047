"""Measure a checkpoint on test sets: `python scripts/benchmark.py checkpoint=PATH|bicubic task=sr_x2 'test_sets=[Set5,Set14]'`."""

from irformer.entry import entry

if __name__ == "__main__":
    entry("irformer.commands.benchmark:benchmark")
