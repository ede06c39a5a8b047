"""From the configuration's `data` part to training images, validation and test sets."""

import os
from pathlib import Path

import torch
from omegaconf import DictConfig

from irformer.data.catalog import SAMPLE, TRAINING_SETS, find_folder
from irformer.data.sources import ImagePair, find_training_set, pair_folders
from irformer.data.test_sets import TestSet, available_test_sets, find_test_set
from irformer.errors import UserError
from irformer.tasks import Task


def find_test_sets(names: list[str] | None, root: Path, task: Task) -> list[TestSet]:
    """The named test sets; without names those of the task's usual ones that are found, or else the sample photos.

    Raises:
        UserError: a named test set is unknown or not on disk.
    """
    if names is not None:
        return [find_test_set(name, root, task) for name in names]
    return available_test_sets(task.test_sets, root, task) or [find_test_set(SAMPLE, root, task)]


def training_pairs(data: DictConfig, root: Path, task: Task) -> tuple[dict[str, str], list[ImagePair]]:
    """The training images, and a line for the summary where they are not what papers train on."""
    if data.path is not None:
        lq = Path(data.lq_path) if data.lq_path is not None else None
        return {}, pair_folders(Path(data.path), lq, task.scale)
    sets = list(data.sets)
    notes = {}
    if not sets and data.name != "auto":
        raise UserError(f"data={data.name} needs the folder of your clean images: add data.path=FOLDER")
    if not sets:
        div2k = TRAINING_SETS["DIV2K"]
        if find_folder(root, div2k.hq):
            sets = ["DIV2K"]
        else:
            sets = [SAMPLE]
            notes = {
                "note": f"no DIV2K below {root}: training on photos that come with scikit-image, enough to see it run. "
                f"For published numbers unpack DIV2K there, from {div2k.source}, or use data=folder data.path=FOLDER"
            }
    return notes, [pair for name in sets for pair in find_training_set(name, root, task.scale)]


def validation_set(data: DictConfig, root: Path, task: Task) -> TestSet:
    """The test set that training is validated on: as configured, or the first usual one of the task that is found."""
    if data.val is not None:
        return find_test_set(data.val, root, task)
    return find_test_sets(None, root, task)[0]


def workers(cfg: DictConfig) -> int:
    """Processes that read ahead: as configured, or none on the CPU and up to 8 beside a GPU."""
    if cfg.data.workers is not None:
        return cfg.data.workers
    on_gpu = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return min(8, max(1, (os.cpu_count() or 1) - 1)) if on_gpu else 0


def cache_bytes(cfg: DictConfig) -> int:
    """The share of the memory for decoded images that each reading process has, in bytes."""
    return int(cfg.data.cache_gb * 2**30) // max(1, workers(cfg))
