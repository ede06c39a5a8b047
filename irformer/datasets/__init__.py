"""Public data sets: where they come from, how they are laid out and downloaded."""
