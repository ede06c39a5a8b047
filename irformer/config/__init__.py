"""From configuration keys to objects."""
