"""Get the public data sets: `python scripts/prepare_data.py list`, then download, pack or verify NAME."""

from irformer.entry import entry

if __name__ == "__main__":
    entry("irformer.commands.prepare_data:prepare_data")
