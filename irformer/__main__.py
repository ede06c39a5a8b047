"""Train one run, or a sweep with -m: `python -m irformer norm=iln model=swinir`, as train.py does."""

from irformer.entry import train

if __name__ == "__main__":
    train()
