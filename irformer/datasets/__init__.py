"""Public data sets: their sources, folder layouts and downloads."""
