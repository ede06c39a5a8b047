"""Compare the arms of a sweep: `python scripts/compare.py runs/SWEEP [--by norm] [--metric psnr_y] [--test-set Set5]`."""

from irformer.entry import compare

if __name__ == "__main__":
    compare()
