"""Speed and memory measurements; each generates its own data and compares the alternatives in one run."""
