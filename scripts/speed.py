"""How fast things are on this machine: `python scripts/speed.py data|memory`."""

from irformer.entry import entry

if __name__ == "__main__":
    entry("irformer.commands.speed:speed")
