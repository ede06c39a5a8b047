"""Find the newest intact checkpoint of an interrupted run, and whether the run is complete."""

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

# The key of a checkpoint under which irformer stores what Lightning's own state lacks for resuming.
STATE = "irformer_resume"

# Append-only files of a run.
LOGS = ("metrics.csv", "dynamics.csv", "vectors.csv", "tensorboard/events.out.tfevents.*")


@dataclass(frozen=True)
class Resume:
    """A checkpoint to resume from.

    Args:
        file: the checkpoint.
        step: completed optimizer steps.
        validation_due: whether the validation at this step is still pending.
        sizes: sizes of the run's logs in bytes when the checkpoint was written, by path relative to the run's folder.
        note: why it is not the newest checkpoint, or None.
    """

    file: Path
    step: int
    validation_due: bool
    sizes: dict[str, int]
    note: str | None


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run in this folder has written a checkpoint."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def find_resume(folder: Path) -> Resume | None:
    """Return the newest intact checkpoint of a run; None if the run stopped before its first one.

    The whole file is verified against its checksums. Reading it runs no code.

    Raises:
        UserError: all checkpoints are damaged.
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
        note = f"{faults[0]}: resuming from {name.name}, the previous checkpoint" if faults else None
        return Resume(file, checkpoint["global_step"], state["validation_due"], state["sizes"], note)
    if faults:
        raise UserError(f"{'; '.join(faults)}: nothing to resume from; init_from={folder} starts a new run from its best weights")
    return None


def trained_steps(folder: Path) -> int | None:
    """Return the number of steps of a complete run; None if the run is not complete."""
    try:
        return json.loads((folder / RESULTS).read_text(encoding="utf-8"))["trained_steps"]
    except (OSError, ValueError, KeyError):
        return None


def is_complete(folder: Path, steps: int) -> bool:
    """Return whether a run has completed this many steps and the final benchmark."""
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
