"""OmegaConf resolvers for values in configs/task that depend on other keys or on files."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from irformer.errors import UserError


def level_word(level: Any) -> str:
    """Format a level for a task's name: 25 and 25.0 as `25`, 12.5 as `12.5`."""
    text = repr(level).removesuffix(".0") if isinstance(level, int | float) else str(level)
    return re.sub(r"[^\w.+-]+", "_", text)  # other values are rejected by the check of the key itself


def pairs_scale(path: Any, lq_path: Any, sets: Iterable[str] | None, test_sets: Iterable[str] | None, root: str) -> int:
    """Determine the scale of a task on pairs from the files of the training set, or of the first test set if there is no training.

    Args:
        path: `data.path`; None outside of training.
        lq_path: `data.lq_path`.
        sets: `data.sets`.
        test_sets: `test_sets`.
        root: the data folder.

    Raises:
        UserError: none of them is given, or the files do not determine the scale.
    """
    from irformer.data.pairs import scale_of_folder, scale_of_set  # imports torch, which a misspelled key should not wait for

    if path is not None:
        return scale_of_folder(Path(str(path)), None if lq_path is None else Path(str(lq_path)))
    if sets:
        return scale_of_set(str(next(iter(sets))), Path(root))
    named = str(next(iter(test_sets))) if test_sets else None
    for folder in (Path(named), Path(root) / named) if named else ():
        if folder.is_dir():
            return scale_of_folder(folder)
    raise UserError(
        "task.scale is unknown because no pairs are given: train on data=folder data.path=FOLDER and measure on 'test_sets=[FOLDER]', "
        "with the folders input and target in each, or set task.scale=N"
    )


OmegaConf.register_new_resolver("irformer.level", level_word, replace=True)
OmegaConf.register_new_resolver("irformer.pairs_scale", pairs_scale, replace=True)
OmegaConf.register_new_resolver("irformer.border", lambda scale: scale if scale > 1 else 0, replace=True)
