"""Tasks: what degrades images, how results are measured, and on which test sets."""

from irformer.tasks.task import Padding, Protocol, Task

__all__ = ["Padding", "Protocol", "Task"]
