"""Restore an image or a folder of images: `python scripts/restore.py INPUT OUTPUT --checkpoint PATH`."""

from irformer.entry import restore

if __name__ == "__main__":
    restore()
