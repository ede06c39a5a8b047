"""Current names of classes that moved since earlier versions wrote them to files."""

from typing import Any

# Modules that moved, by the old name that saved configurations and weights files may still use.
_MODULES = {
    "irformer.degradations": "irformer.tasks.degradations",
    "irformer.dynamics.probe": "irformer.training.callbacks.probe",
    "irformer.training.debug": "irformer.training.callbacks.debugging",
    "irformer.training.display": "irformer.training.callbacks.display",
    "irformer.training.guard": "irformer.training.callbacks.guard",
    "irformer.training.monitor": "irformer.training.callbacks.monitor",
}
_CLASSES = {
    "irformer.tasks.Protocol": "irformer.tasks.EvaluationProtocol",
    "irformer.training.callbacks.display.ImageGrids": "irformer.training.callbacks.validation_crops.ValidationCrops",
    "irformer.training.display.ImageGrids": "irformer.training.callbacks.validation_crops.ValidationCrops",
}


def current_name(target: Any) -> Any:
    """Return the current name of a class; other values are returned unchanged."""
    if not isinstance(target, str):
        return target
    module, _, name = target.rpartition(".")
    if target in _CLASSES:
        return _CLASSES[target]
    return f"{_MODULES[module]}.{name}" if module in _MODULES else target


def with_current_names(node: Any) -> Any:
    """Copy plain data, replacing every `_target_` at any depth by its current name."""
    if isinstance(node, dict):
        return {key: current_name(value) if key == "_target_" else with_current_names(value) for key, value in node.items()}
    if isinstance(node, list):
        return [with_current_names(value) for value in node]
    return node
