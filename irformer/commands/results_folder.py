"""The folder of a benchmark's results.json: results on more test sets are merged, results of another evaluation are refused."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from irformer.core.files import file_lock
from irformer.errors import UserError
from irformer.evaluation.results import read_results, strict, write_results

_REMEDY = "choose another folder with out=FOLDER"


class ResultsFolder:
    """A folder whose results.json accumulates test sets for one checkpoint, task and protocol.

    Args:
        folder: created when it is reserved.
        identity: the record of the evaluation, without test sets.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.file = folder / "results.json"
        self.identity = strict(identity)

    @contextlib.contextmanager
    def reserved(self, images: Mapping[str, set[str]]) -> Iterator[None]:
        """Check before the evaluation that results can be added and the folder can be written to.

        If no results are written, the folder is removed again.

        Args:
            images: the names of the images of each test set to be evaluated.

        Raises:
            UserError: results.json belongs to another checkpoint, task, protocol or set of metrics, or cannot be read; or the folder
                cannot be written to.
        """
        missing = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self.folder / ".lock"
            lock.touch()
        try:
            self._require_same_sets(self._existing(), images)
            yield
        finally:
            if not self.file.exists():
                with contextlib.suppress(OSError):
                    lock.unlink()
                    for folder in missing:
                        folder.rmdir()

    def add(self, record: Mapping[str, Any]) -> Path:
        """Merge a record into results.json; a test set that was evaluated again replaces its earlier results.

        Returns:
            The file.
        """
        with self._writing(), file_lock(self.folder / ".lock"):  # another process may add its sets at the same time
            existing = self._existing()
            write_results(self.file, {**existing, **record, "test_sets": {**existing.get("test_sets", {}), **record["test_sets"]}})
        return self.file

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{error.filename or self.folder}: cannot be written ({error.strerror}); {_REMEDY}") from None

    def _existing(self) -> dict[str, Any]:
        """Return the content of an existing results.json; empty if there is none."""
        if not self.file.exists():
            return {}
        try:
            existing = read_results(self.file)
        except UserError as error:
            raise UserError(f"{error}; the file is not changed; {_REMEDY}") from None
        if "sha256" not in existing:
            raise UserError(f"{self.file}: was not written by a benchmark of this version, so results cannot be added to it; {_REMEDY}")
        for key, what in _IDENTITY.items():
            if key == "checkpoint" and self.identity["sha256"] is not None:
                continue  # the same weights under another name
            if existing.get(key) != self.identity.get(key):
                found, expected = _differing(existing.get(key), self.identity.get(key))
                raise UserError(f"{self.file}: contains results of another {what}: found {found}, expected {expected}; {_REMEDY}")
        return existing

    def _require_same_sets(self, existing: Mapping[str, Any], images: Mapping[str, set[str]]) -> None:
        for name, names in images.items():
            measured = existing.get("test_sets", {}).get(name, {}).get("per_image")
            if measured and not names & measured.keys():
                raise UserError(f"{self.file}: contains results of another test set {name}, with no image in common; {_REMEDY}")


_IDENTITY = {
    "sha256": "checkpoint (SHA-256)",
    "checkpoint": "checkpoint",
    "model_overrides": "network",
    "task": "task",
    "task_label": "task",
    "protocol": "protocol",
    "extra_metrics": "set of extra metrics",
}


def _differing(found: Any, expected: Any) -> tuple[Any, Any]:
    """Reduce two values to the parts that differ, and shorten checksums."""
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
        return tuple(", ".join(f"{key} {part.get(key, 'not set')}" for key in keys) for part in (found, expected))  # type: ignore[return-value]
    return tuple(value[:8] if isinstance(value, str) and len(value) == 64 else value for value in (found, expected))  # type: ignore[return-value]
