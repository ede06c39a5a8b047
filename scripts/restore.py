"""Restore an image or a folder of images: `python scripts/restore.py INPUT OUTPUT --checkpoint PATH`."""

from irformer.entry import entry

if __name__ == "__main__":
    entry("irformer.commands.restore:restore")
