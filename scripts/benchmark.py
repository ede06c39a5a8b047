"""Evaluate a checkpoint on test sets: `python scripts/benchmark.py checkpoint=PATH|bicubic task=sr_x2 'test_sets=[Set5,Set14]'`."""

from irformer.entry import benchmark

if __name__ == "__main__":
    benchmark()
