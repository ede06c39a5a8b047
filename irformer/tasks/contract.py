"""Checks of tasks and degradations, which may come from other packages."""

from typing import Any

from irformer.errors import UserError
from irformer.tasks.degradations import DeviceDegradation
from irformer.tasks.task import Task


def require_task(task: Any, name: str) -> None:
    """Check a task and its degradation.

    Raises:
        UserError: the object is not a task, or its degradation does not fulfill its contract.
    """
    if not isinstance(task, Task):
        raise UserError(f"task: {name} is not an irformer.tasks.Task; expected that class or a subclass")
    degradation: Any = task.degradation
    subject = f"task.degradation: {type(degradation).__module__}.{type(degradation).__qualname__}"
    if not callable(getattr(degradation, "test", None)):
        raise UserError(f"{subject} has no method test(image), which degrades a test image [H, W, C]")
    if not hasattr(degradation, "degrade_patch") or isinstance(degradation, DeviceDegradation):
        return
    missing = [key for key in ("margin", "grid", "turned_first") if not hasattr(degradation, key)]
    if missing:
        raise UserError(
            f"{subject} has a method degrade_patch but no {' and no '.join(missing)}; expected the attributes of "
            "irformer.tasks.degradations.PatchDegradation"
        )
