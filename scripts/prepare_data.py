"""Get the public data sets: `python scripts/prepare_data.py list`, then download, pack or verify NAME."""

from irformer.entry import prepare_data

if __name__ == "__main__":
    prepare_data()
