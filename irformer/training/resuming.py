"""Where a run that was interrupted goes on: the newest of its checkpoints that is whole, and whether there is anything left to do."""

import json
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irformer.core.trust import shortened
from irformer.errors import UserError
from irformer.weights.building import first_line
from irformer.weights.checkpoints import LAST
from irformer.weights.pickles import read_pickled, require_file, unpacks_to_more

PREVIOUS = LAST.with_name("previous.ckpt")
RESULTS = Path("results.json")

# What resuming needs beside Lightning's own states, under this key of a checkpoint.
STATE = "irformer_resume"

# Files that only grow while a run goes on.
LOGS = ("metrics.csv", "dynamics.csv", "tensorboard/events.out.tfevents.*")


@dataclass(frozen=True)
class Resume:
    """A checkpoint to go on from.

    Args:
        file: the checkpoint.
        step: optimizer steps done.
        validation_due: the validation that belongs to this step is still to be done.
        sizes: bytes of the run's logs when it was written, by their path within the run's folder.
        note: why it is not the newest, or None.
    """

    file: Path
    step: int
    validation_due: bool
    sizes: dict[str, int]
    note: str | None


def has_checkpoint(folder: Path) -> bool:
    """Whether a run in this folder has saved anything."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def find_resume(folder: Path) -> Resume | None:
    """The newest checkpoint of a run that is whole; None where the run was stopped before its first.

    Every byte is checked against the checksums in the file. Reading it runs no code.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    faults = []
    for name in (LAST, PREVIOUS):
        file = folder / name
        if not file.exists():
            continue
        try:
            checkpoint = _read(file)
        except (OSError, UserError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            faults.append(f"{os.path.relpath(file)} is damaged ({first_line(error).removeprefix(f'{file}: ')})")
            continue
        state = checkpoint[STATE]
        note = f"{faults[0]}: going on from {name.name}, which is the one before" if faults else None
        return Resume(file, checkpoint["global_step"], state["validation_due"], state["sizes"], note)
    if faults:
        raise UserError(f"{'; '.join(faults)}: nothing to resume from; init_from={folder} starts a new run from its best weights")
    return None


def trained_steps(folder: Path) -> int | None:
    """The steps after which a run was measured and came to its end; None where it has not."""
    try:
        return json.loads((folder / RESULTS).read_text(encoding="utf-8"))["trained_steps"]
    except (OSError, ValueError, KeyError):
        return None


def is_complete(folder: Path, steps: int) -> bool:
    """Whether a run has done so many steps and everything that comes after them."""
    done = trained_steps(folder)
    return done is not None and done >= steps


def _read(file: Path) -> dict[str, Any]:
    require_file(file, "a checkpoint of a run")
    with zipfile.ZipFile(file) as archive:
        bad = None if unpacks_to_more(file, archive) else archive.testzip()
    if bad is not None:
        raise UserError(f"its part {shortened(bad)} does not match its checksum")
    checkpoint = read_pickled(file, mmap=True)
    state = checkpoint.get(STATE) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise UserError("not a checkpoint of a run")
    sizes = state.get("sizes")
    if (
        type(checkpoint.get("global_step")) is not int
        or type(state.get("validation_due")) is not bool
        or not isinstance(sizes, dict)
        or not all(isinstance(name, str) and type(size) is int and size >= 0 for name, size in sizes.items())
    ):
        raise UserError("its step, its due validation or the sizes of its logs cannot be read")
    return checkpoint
