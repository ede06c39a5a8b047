"""How fast things are here, measured: each part makes what it needs, and compares in one run."""
