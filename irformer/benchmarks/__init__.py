"""Benchmarks of several networks on several tasks and test sets, with results that are kept and tables that are written."""
