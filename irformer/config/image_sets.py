"""From the configuration's `data` part to training images, validation and test sets."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from omegaconf import DictConfig

from irformer.data.inventory import count_images
from irformer.data.mixtures import Draw, JoinedImages, chances
from irformer.data.packing import folder_source, open_source, set_source
from irformer.data.pairs import training_halves
from irformer.data.sources import TrainingImages
from irformer.data.store import PackedImages
from irformer.data.test_sets import TestSet, available_test_sets, find_test_set
from irformer.datasets.catalog import SAMPLE, TRAINING_SETS, find_folder, how_to_get
from irformer.errors import UserError
from irformer.imaging.images import MAX_MEGAPIXELS, printable
from irformer.tasks.degradations import FromFiles
from irformer.tasks.task import Task


def find_test_sets(names: list[str] | None, root: Path, task: Task, max_megapixels: float = MAX_MEGAPIXELS) -> list[TestSet]:
    """The named test sets; without names those of the task's usual ones that are found, or else the sample photos.

    Sets whose folders have one name (`a/val` and `b/val`) are called by what was typed for them, so that results tell them apart.

    Args:
        names: of the test sets, or paths of folders.
        root: the data folder.
        task: what they are for.
        max_megapixels: the largest image that is read, in millions of pixels.

    Raises:
        UserError: a named test set is unknown, not on disk or named twice; or none is found, and the task cannot degrade the sample photos.
    """
    if names is not None:
        return _told_apart([find_test_set(name, root, task, max_megapixels) for name in names], names)
    found = available_test_sets(task.test_sets, root, task, max_megapixels)
    if found:
        return found
    if isinstance(task.degradation, FromFiles):
        name_them = "name a folder that has them by test_sets=[FOLDER] and, for validation, data.val=FOLDER"
        if not task.test_sets:
            raise UserError(f"{task.name} is measured on your own pairs, in the folders input and target: {name_them}")
        raise UserError(
            f"none of the test sets of {task.name} ({', '.join(task.test_sets)}) was found below {root}: put one there, with its folders "
            f"input and target, or {name_them}"
        )
    return [find_test_set(SAMPLE, root, task, max_megapixels)]


def _told_apart(test_sets: list[TestSet], typed: Sequence[str]) -> list[TestSet]:
    """Give each of the sets a name of its own."""
    by_files: dict[tuple[Path, ...], str] = {}
    for test_set, name in zip(test_sets, typed, strict=True):
        files = tuple(pair.hq.resolve() for pair in test_set.pairs)
        if files in by_files:
            raise UserError(f"test_sets: {by_files[files]} and {name} are the same images, expected each test set once: remove one of them")
        by_files[files] = name
    count = Counter(test_set.name for test_set in test_sets)
    for test_set, name in zip(test_sets, typed, strict=True):
        if count[test_set.name] > 1:
            test_set.name = printable(name)
    return test_sets


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on.

    Args:
        images: the training set.
        read_from: for the summary: `packed`, `folder`, or which set is what.
        notes: lines for the summary where something is not as papers or users would expect.
    """

    images: TrainingImages
    read_from: str
    notes: dict[str, str]


def training_data(cfg: DictConfig, task: Task) -> TrainingData:
    """The training set that a configuration names: a folder, known sets, or a mixture of them.

    Raises:
        UserError: a set is unknown or not on disk, files are damaged or do not fit, or a key has no meaning.
    """
    data, root = cfg.data, Path(cfg.paths.data)
    if data.draw not in get_args(Draw):
        raise UserError(f"data.draw={data.draw}: expected {' or '.join(get_args(Draw))}")
    sets, shares, notes = _sets(data, root)
    budget = cache_bytes(cfg) // max(1, len(sets))
    if data.path is not None:
        sources = [folder_source(*_halves(data, task), task.scale)]
    else:
        sources = [set_source(name, root, task.scale, lq_files=_wants_lq_files(task)) for name in sets]
    parts = []
    for source in sources:
        packed = Path(cfg.paths.packed) if data.packed else None
        part, remark = open_source(source, packed, task.scale, budget, data.max_megapixels)
        parts.append(part)
        notes |= {"note": remark} if remark else {}
    kinds = ["packed" if isinstance(part, PackedImages) else "folder" for part in parts]
    read_from = kinds[0] if len(set(kinds)) == 1 else ", ".join(f"{s.name} {kind}" for s, kind in zip(sources, kinds, strict=True))
    if len(parts) == 1 and data.draw == "images":
        return TrainingData(parts[0], read_from, notes)
    return TrainingData(JoinedImages(parts, chances(parts, shares, data.draw)), read_from, notes)


def _halves(data: DictConfig, task: Task) -> tuple[Path, Path | None]:
    """The folders of the clean and the degraded images of `data.path`; the latter None where the task makes them.

    Raises:
        UserError: degraded files are named for a task that makes its own, and would train on one degradation and be measured on another.
    """
    path, lq = Path(data.path), None if data.lq_path is None else Path(data.lq_path)
    if isinstance(task.degradation, FromFiles):
        return training_halves(path, lq, task.scale)
    halves = training_halves(path, None, task.scale)
    if halves[1] is not None and count_images(path) == 0:
        raise UserError(
            f"data.path={path} holds pairs, and the task {task.name} degrades clean images itself: train and measure on pairs by "
            f"task=pairs, or train on the clean images alone by data.path={halves[0]}"
        )
    if lq is not None and task.scale == 1:
        raise UserError(
            f"data.lq_path={lq}: the task {task.name} degrades its test images itself, so a run on these files would be measured on "
            "another degradation; train and measure on pairs by task=pairs, or leave data.lq_path out"
        )
    return path, lq


def _sets(data: DictConfig, root: Path) -> tuple[list[str], list[float] | None, dict[str, str]]:
    """Names of the known sets and their shares (None: all images alike), and what the summary says about them."""
    if data.path is not None:
        return [], None, {}
    if isinstance(data.sets, DictConfig):
        shares = {str(name): share for name, share in data.sets.items()}
        wrong = [f"{name}: {share}" for name, share in shares.items() if not isinstance(share, int | float) or not 0 < share < math.inf]
        if wrong:
            raise UserError(f"data.sets: expected NAME: SHARE with shares above 0, as {{DIV2K: 0.5, WED: 0.5}}, found {wrong[0]}")
        return list(shares), [float(share) for share in shares.values()], {}
    if data.sets:
        return list(data.sets), None, {}
    if data.name == "mixture":
        raise UserError("data=mixture needs sets with their shares: add 'data.sets={DIV2K: 0.5, WED: 0.5}'")
    if data.name != "auto":
        raise UserError(f"data={data.name} needs the folder of your clean images: add data.path=FOLDER")
    div2k = TRAINING_SETS["DIV2K"]
    if find_folder(root, div2k.hq):
        return ["DIV2K"], None, {}
    note = (
        f"no DIV2K below {root}: training on photos that come with scikit-image, enough to see it run. "
        f"For published numbers {how_to_get('DIV2K')}, or use data=folder data.path=FOLDER"
    )
    return [SAMPLE], None, {"note": note}


def _wants_lq_files(task: Task) -> bool:
    """Whether degraded images that come with a set are this task's: rain, or official LR files, which are MATLAB's imresize on uint8."""
    return isinstance(task.degradation, FromFiles) or (task.scale > 1 and task.protocol.lr == "matlab_uint8")


def validation_set(data: DictConfig, root: Path, task: Task) -> TestSet:
    """The test set that training is validated on: as configured, or the first usual one of the task that is found."""
    if data.val is not None:
        return find_test_set(data.val, root, task, data.max_megapixels)
    return find_test_sets(None, root, task, data.max_megapixels)[0]


def named_mixture(data: DictConfig, test_sets: Sequence[TestSet]) -> dict[str, str]:
    """A line for the summary where training takes its degraded images from `data.lq_path` and tests make theirs, as SR tasks may."""
    made = sorted({test_set.name for test_set in test_sets if test_set.lq_source != "files"})
    if data.lq_path is None or not made:
        return {}
    return {"LQ": f"trained on the files of {data.lq_path}; those of {', '.join(made)} are made on the fly by the task's own rule"}


def workers(cfg: DictConfig) -> int:
    """Processes that read ahead: as configured, or none on the CPU and up to 8 beside a GPU."""
    if cfg.data.workers is not None:
        return cfg.data.workers
    on_gpu = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return min(8, max(1, (os.cpu_count() or 1) - 1)) if on_gpu else 0


def cache_bytes(cfg: DictConfig) -> int:
    """The share of the memory for decoded images that each reading process has, in bytes."""
    return int(cfg.data.cache_gb * 2**30) // max(1, workers(cfg))
