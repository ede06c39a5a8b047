"""Train one run, or a sweep with -m: `python train.py norm=iln model=swinir`. configs/train.yaml lists the keys."""

from irformer.entry import train

if __name__ == "__main__":
    train()
