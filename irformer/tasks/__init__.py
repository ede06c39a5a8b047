"""Restoration tasks: degradation, evaluation protocol and test sets."""

from irformer.tasks.task import Padding, Protocol, Task

__all__ = ["Padding", "Protocol", "Task"]
