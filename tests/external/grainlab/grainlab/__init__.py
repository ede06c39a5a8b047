"""Film grain: an example of a package that extends irformer."""
