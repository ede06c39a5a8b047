"""Write docs/configuration.md: `python scripts/configuration.py [PAGE]`."""

from irformer.entry import configuration

if __name__ == "__main__":
    configuration()
