"""Set the arms of a sweep against each other: `python scripts/compare.py runs/SWEEP [--by norm] [--metric psnr_y] [--test-set Set5]`."""

from irformer.commands.compare import compare_runs

if __name__ == "__main__":
    compare_runs()
