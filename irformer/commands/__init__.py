"""The commands behind train.py and scripts/, one module each, with one-line reports of user errors."""
