"""Tasks: what degrades images, how results are measured, and on which test sets."""

from irformer.tasks.task import EvaluationProtocol, Padding, Task

Protocol = EvaluationProtocol  # the name in configuration files that users wrote for earlier versions

__all__ = ["EvaluationProtocol", "Padding", "Task"]
