"""The check of tasks and degradations, which may come from other packages."""

from typing import Any

from irformer.errors import UserError
from irformer.tasks.degradations import DeviceDegradation
from irformer.tasks.task import Task


def require_task(task: Any, name: str) -> None:
    """Check a task and its degradation.

    Raises:
        UserError: it is no task, or its degradation lacks something.
    """
    if not isinstance(task, Task):
        raise UserError(f"task: {name} is no irformer.tasks.Task: expected the class itself or a subclass")
    degradation: Any = task.degradation
    what = f"task.degradation: {type(degradation).__module__}.{type(degradation).__qualname__}"
    if not callable(getattr(degradation, "test", None)):
        raise UserError(f"{what} has no method test(image), which degrades a test image [H, W, C]")
    if not hasattr(degradation, "degrade_patch") or isinstance(degradation, DeviceDegradation):
        return
    lacking = [key for key in ("margin", "grid", "turned_first") if not hasattr(degradation, key)]
    if lacking:
        raise UserError(
            f"{what} has a method degrade_patch and no {' and no '.join(lacking)}: expected the attributes of "
            "irformer.tasks.degradations.PatchDegradation"
        )
