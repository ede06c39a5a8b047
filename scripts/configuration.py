"""Write docs/configuration.md: python scripts/configuration.py [PAGE]."""

from irformer.entry import entry

if __name__ == "__main__":
    entry("irformer.commands.configuration:configuration")
