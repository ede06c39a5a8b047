"""Train one run, or a sweep with -m: `python -m irformer norm=iln model=swinir`, as train.py does."""

from irformer.entry import entry

if __name__ == "__main__":
    entry("irformer.commands.train:train")
