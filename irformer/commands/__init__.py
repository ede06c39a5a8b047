"""The commands behind train.py and scripts/, one file each, and how a user's mistake is told in one line."""
