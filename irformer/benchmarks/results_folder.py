"""The folder of a benchmark's results.json, which keeps every result: a set that was measured before is found again, nothing is lost."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from irformer.core.files import file_lock, sha256
from irformer.data.test_sets import TestSet
from irformer.errors import UserError
from irformer.evaluation.results import Record, read_records, strict, write_records

IMAGES_KEY = "images"
"""Key of a record for the task and the name that its restored images have, such as `sr_x2/craft_x4`."""

_REMEDY = "choose another folder with out=FOLDER"


def identity(record: Record) -> dict[str, Any]:
    """Return what distinguishes the results of a record from those of others, as plain values: weights, task, protocol, departures.

    The path of a weights file is not part of it, and neither are a label or the versions of packages.
    """
    further = record.further
    return {
        "weights": further.get("sha256") or record.checkpoint,
        "task": [record.task, record.task_label],
        "protocol": record.protocol,
        "departures": record.departures,
        "metrics": sorted(record.traits),
        **{key: further.get(key) or {} for key in ("model_overrides", "extra_metrics", "degradation")},
    }


def digest(values: Any) -> str:
    """Return a checksum of plain values."""
    return hashlib.sha256(json.dumps(strict(values), sort_keys=True, default=str).encode()).hexdigest()


def fingerprint(test_set: TestSet) -> str:
    """Return a checksum of the names and files of a test set."""
    sums = hashlib.sha256()
    for pair in test_set.pairs:
        for file in (pair.hq, pair.lq):
            sums.update(f"{pair.name}\0".encode(errors="surrogateescape"))
            if file is not None:
                sums.update(sha256(file).encode())
    return sums.hexdigest()


class ResultsFolder:
    """A folder whose results.json accumulates records.

    Args:
        folder: created when it is reserved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "results.json"

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """Check before the evaluation that results can be added and the folder can be written to.

        If no results are written, the folder is removed again.

        Raises:
            UserError: results.json cannot be read or was written by a run, or the folder cannot be written to.
        """
        missing = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self.folder / ".lock"
            lock.touch()
        try:
            self.records()
            yield
        finally:
            if not self.file.exists():
                with contextlib.suppress(OSError):
                    lock.unlink()
                    for folder in missing:
                        folder.rmdir()

    def records(self) -> list[Record]:
        """Return the records of an existing results.json; empty if there is none.

        Raises:
            UserError: it cannot be read, or was written by a run.
        """
        if not self.file.exists():
            return []
        try:
            records = read_records(self.file)
        except UserError as error:
            raise UserError(f"{error}; the file is not changed; {_REMEDY}") from None
        if any("sha256" not in record.further for record in records):
            raise UserError(f"{self.file}: was not written by a benchmark of this version, so results cannot be added to it; {_REMEDY}")
        return records

    def find(self, record: Record) -> Record | None:
        """Return the existing record with the same identity, or None."""
        wanted = digest(identity(record))
        return next((found for found in self.records() if digest(identity(found)) == wanted), None)

    def image_name(self, record: Record, name: str) -> str:
        """Return a name for the restored images of a record: the given one, unless the images of another record have it.

        Args:
            record: the record.
            name: the task and the wanted name, such as `sr_x2/craft_x4`; weights of equal file names want the same.
        """
        own = digest(identity(record))
        taken = {found.further.get(IMAGES_KEY) for found in self.records() if digest(identity(found)) != own}
        return f"{name}-{own[:8]}" if name in taken else name

    def require_same_sets(self, record: Record, images: Mapping[str, set[str]]) -> None:
        """Check that a test set does not replace another one of the same name.

        Args:
            record: the record to which the sets will be added.
            images: the names of the images of each test set.

        Raises:
            UserError: an existing set of the same name has no image in common.
        """
        found = self.find(record)
        for name, names in images.items():
            measured = found.test_sets.get(name) if found is not None else None
            if measured is not None and not names & (measured.per_image.keys() | measured.non_finite.keys()):
                raise UserError(f"{self.file}: contains results of another test set {name}, with no image in common; {_REMEDY}")

    def add(self, record: Record) -> None:
        """Merge a record into results.json; a test set that was evaluated again replaces its earlier results.

        Raises:
            UserError: the file cannot be written; it is unchanged then.
        """
        with self.writing(), file_lock(self.folder / ".lock"):  # another process may add its sets at the same time
            records = self.records()
            wanted = digest(identity(record))
            for i, found in enumerate(records):
                if digest(identity(found)) == wanted:
                    records[i] = replace(record, test_sets={**found.test_sets, **record.test_sets})
                    break
            else:
                records.append(record)
            write_records(self.file, records)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an error of the file system within a block into one line."""
        try:
            yield
        except OSError as error:
            raise UserError(f"{error.filename or self.folder}: cannot be written ({error.strerror}); {_REMEDY}") from None
