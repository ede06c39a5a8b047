"""Get the public data sets: `python scripts/prepare_data.py list`, then download, pack or verify NAME."""

from irformer.commands.prepare_data import prepare_data

if __name__ == "__main__":
    prepare_data()
