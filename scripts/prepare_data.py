"""List, download, pack and verify public data sets: `python scripts/prepare_data.py list|download|pack|verify [NAME ...]`."""

from irformer.entry import prepare_data

if __name__ == "__main__":
    prepare_data()
