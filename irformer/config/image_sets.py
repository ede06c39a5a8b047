"""Training images, validation set and test sets from the `data` section of a configuration."""

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
    """Find the given test sets; by default the available ones of the task's usual test sets, or the sample photos if there are none.

    Sets in folders of the same name, such as `a/val` and `b/val`, are named by the paths given by the user, to distinguish their results.

    Args:
        names: names of test sets, or paths of folders.
        root: the data folder.
        task: the task to test.
        max_megapixels: the largest image to read, in millions of pixels.

    Raises:
        UserError: a given test set is unknown, not on disk or listed twice; or no test set is found and the task cannot degrade the sample
            photos.
    """
    if names is not None:
        return _with_distinct_names([find_test_set(name, root, task, max_megapixels) for name in names], names)
    found = available_test_sets(task.test_sets, root, task, max_megapixels)
    if found:
        return found
    if isinstance(task.degradation, FromFiles):
        remedy = "specify a folder of pairs with test_sets=[FOLDER] and, for validation, data.val=FOLDER"
        if not task.test_sets:
            raise UserError(f"{task.name} is measured on your own pairs, in the folders input and target: {remedy}")
        raise UserError(
            f"none of the test sets of {task.name} ({', '.join(task.test_sets)}) was found in {root}: add one there, with its folders "
            f"input and target, or {remedy}"
        )
    return [find_test_set(SAMPLE, root, task, max_megapixels)]


def _with_distinct_names(test_sets: list[TestSet], given: Sequence[str]) -> list[TestSet]:
    """Give each test set a distinct name."""
    by_files: dict[tuple[Path, ...], str] = {}
    for test_set, name in zip(test_sets, given, strict=True):
        files = tuple(pair.hq.resolve() for pair in test_set.pairs)
        if files in by_files:
            raise UserError(f"test_sets: {by_files[files]} and {name} are the same images, expected each test set once: remove one of them")
        by_files[files] = name
    count = Counter(test_set.name for test_set in test_sets)
    for test_set, name in zip(test_sets, given, strict=True):
        if count[test_set.name] > 1:
            test_set.name = printable(name)
    return test_sets


@dataclass(frozen=True)
class TrainingData:
    """The training data of a run.

    Args:
        images: the training set.
        read_from: storage of the images, for the summary: `packed`, `folder`, or one of these for each set.
        notes: lines for the summary about anything that differs from papers or from users' expectations.
    """

    images: TrainingImages
    read_from: str
    notes: dict[str, str]


def training_data(cfg: DictConfig, task: Task) -> TrainingData:
    """Open the training set of a configuration: a folder, known sets, or a mixture of them.

    Raises:
        UserError: a set is unknown or not on disk, files are damaged or have mismatched sizes, or a key is invalid.
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
    """Return the folders of the clean and the degraded images of `data.path`; the latter is None if the task generates them.

    Raises:
        UserError: degraded files are given for a task that generates its own, so training and test degradation would differ.
    """
    path, lq = Path(data.path), None if data.lq_path is None else Path(data.lq_path)
    if isinstance(task.degradation, FromFiles):
        return training_halves(path, lq, task.scale)
    halves = training_halves(path, None, task.scale)
    if halves[1] is not None and count_images(path) == 0:
        raise UserError(
            f"data.path={path} contains pairs, but the task {task.name} degrades clean images itself: train and measure on pairs with "
            f"task=pairs, or train only on the clean images with data.path={halves[0]}"
        )
    if lq is not None and task.scale == 1:
        raise UserError(
            f"data.lq_path={lq}: the task {task.name} degrades its test images itself, so a run on these files would be measured on "
            "another degradation; train and measure on pairs with task=pairs, or omit data.lq_path"
        )
    return path, lq


def _sets(data: DictConfig, root: Path) -> tuple[list[str], list[float] | None, dict[str, str]]:
    """Return the names of the known sets, their shares (None weights all images equally), and notes for the summary."""
    if data.path is not None:
        return [], None, {}
    if isinstance(data.sets, DictConfig):
        shares = {str(name): share for name, share in data.sets.items()}
        invalid = [f"{name}: {share}" for name, share in shares.items() if not isinstance(share, int | float) or not 0 < share < math.inf]
        if invalid:
            raise UserError(f"data.sets: expected NAME: SHARE with shares above 0, such as {{DIV2K: 0.5, WED: 0.5}}, found {invalid[0]}")
        return list(shares), [float(share) for share in shares.values()], {}
    if data.sets:
        return list(data.sets), None, {}
    if data.name == "mixture":
        raise UserError("data=mixture needs sets with their shares, such as 'data.sets={DIV2K: 0.5, WED: 0.5}'")
    if data.name != "auto":
        raise UserError(f"data={data.name} needs a folder of clean images: add data.path=FOLDER")
    div2k = TRAINING_SETS["DIV2K"]
    if find_folder(root, div2k.hq):
        return ["DIV2K"], None, {}
    note = (
        f"no DIV2K in {root}: training on photos that come with scikit-image, which is enough to try it out. "
        f"For published numbers {how_to_get('DIV2K')}, or use data=folder data.path=FOLDER"
    )
    return [SAMPLE], None, {"note": note}


def _wants_lq_files(task: Task) -> bool:
    """Return whether the task uses degraded files of a set: rain, or official LR files, which use MATLAB's imresize on uint8."""
    return isinstance(task.degradation, FromFiles) or (task.scale > 1 and task.protocol.lr == "matlab_uint8")


def validation_set(data: DictConfig, root: Path, task: Task) -> TestSet:
    """Return the validation set: as configured, or the first available of the task's usual test sets."""
    if data.val is not None:
        return find_test_set(data.val, root, task, data.max_megapixels)
    return find_test_sets(None, root, task, data.max_megapixels)[0]


def named_mixture(data: DictConfig, test_sets: Sequence[TestSet]) -> dict[str, str]:
    """Return a line for the summary if training uses the degraded images of `data.lq_path` and tests generate theirs, as in SR tasks."""
    generated = sorted({test_set.name for test_set in test_sets if test_set.lq_source != "files"})
    if data.lq_path is None or not generated:
        return {}
    return {"LQ": f"trained on the files in {data.lq_path}; those of {', '.join(generated)} are generated on the fly by the task's rule"}


def workers(cfg: DictConfig) -> int:
    """Return the number of data loading workers: as configured, or 0 on the CPU and up to 8 with a GPU."""
    if cfg.data.workers is not None:
        return cfg.data.workers
    on_gpu = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return min(8, max(1, (os.cpu_count() or 1) - 1)) if on_gpu else 0


def cache_bytes(cfg: DictConfig) -> int:
    """Return the cache size for decoded images of each reading process, in bytes."""
    return int(cfg.data.cache_gb * 2**30) // max(1, workers(cfg))
