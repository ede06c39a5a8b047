"""Reproduce a claim of the i-LN paper: `python scripts/reproduce.py figure1 budget=cpu|gpu|paper [out=FOLDER] [overrides of train.py]`."""

from irformer.entry import reproduce

if __name__ == "__main__":
    reproduce()
