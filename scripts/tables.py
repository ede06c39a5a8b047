"""Write docs/models.md, docs/norms.md and docs/tasks.md: `python scripts/tables.py [FOLDER]`."""

from irformer.entry import tables

if __name__ == "__main__":
    tables()
