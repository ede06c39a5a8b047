"""The arms of figure 2 and table 2: pairs of official LayerNorm and i-LN networks over depth, width, tasks and backbones."""

from collections.abc import Iterator, Mapping

from irformer.experiments.budgets import Budget
from irformer.experiments.lab_arms import OFFICIAL_ILN, OFFICIAL_LN, Arm

BASE, DEEP, WIDE = "base", "deep", "wide"


def settings(budget: Budget) -> Mapping[str, str]:
    """Return the titles of the settings by key."""
    return {BASE: f"{budget.model}, x{budget.scale}"} | {key: title for key, (title, _, _) in _changes(budget).items()}


def tasks_and_backbones(budget: Budget) -> Mapping[str, str]:
    """Return the titles of the settings of table 2: all but depth and width."""
    return {key: title for key, title in settings(budget).items() if key not in (DEEP, WIDE)}


def _changes(budget: Budget) -> dict[str, tuple[str, tuple[str, ...], float]]:
    """Return title, overrides and relative cost of each setting but the base."""
    changes = {
        DEEP: ("twice the depth", budget.twice_depth, 2.0),
        WIDE: ("twice the width", budget.twice_width, 2.0),
        "denoise": ("color denoising, sigma 25", ("task=denoise_color_25", *budget.restoration), 1.0),
        "jpeg": ("JPEG artifacts, quality 10", ("task=jpeg_color_10", *budget.restoration), 1.0),
    }
    for name, (words, cost) in budget.backbones.items():
        changes[name] = (name, (f"model={name}", *words), cost)
    return changes


def setting_arms(budget: Budget) -> Iterator[Arm]:
    """Yield both networks of each setting."""
    return _pairs(budget, settings(budget))


def task_and_backbone_arms(budget: Budget) -> Iterator[Arm]:
    """Yield both networks of each setting of table 2."""
    return _pairs(budget, tasks_and_backbones(budget))


def _pairs(budget: Budget, titles: Mapping[str, str]) -> Iterator[Arm]:
    steps = () if budget.setting == budget.short else (f"trainer.max_steps={budget.setting}",)
    changes = {BASE: ((), 1.0)} | {key: ((*words, *steps), cost) for key, (_, words, cost) in _changes(budget).items()}
    for key, title in titles.items():
        words, cost = changes[key]
        for norm, name, official in (("ln", "LayerNorm", OFFICIAL_LN), ("iln", "i-LN", OFFICIAL_ILN)):
            yield Arm(f"{key}-{norm}", f"{title}: {name}", (*words, *official), budget.setting_seeds, cost)
