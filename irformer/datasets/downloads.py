"""Resumable HTTP downloads: received bytes are kept in NAME.part, and the next attempt continues from there."""

import hashlib
import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from irformer.core.files import write_atomically
from irformer.datasets.origins import Archive
from irformer.errors import UserError

_log = logging.getLogger(__name__)
_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses that are worth a retry


class UnreachableError(UserError):
    """A file cannot be downloaded from its URL; the message says why, but not what to do instead, which depends on the set."""


@dataclass(frozen=True)
class _Started:
    """The identity of the file that a .part file belongs to, stored next to it."""

    url: str
    validator: str  # strong ETag or modification date sent by the server; empty if it sent neither
    total: int | None  # size of the whole file in bytes


def part_file(archive: Archive, folder: Path) -> Path:
    """Return the path of the .part file of an archive."""
    return folder / f"{archive.file}.part"


def fetch(
    archive: Archive,
    folder: Path,
    require_space: Callable[[int, int], None],
    attempts: int = 4,
    pause: float = 2.0,
) -> Path:
    """Download an archive, resuming an earlier attempt.

    Args:
        archive: the archive to download.
        folder: folder of its .part file.
        require_space: called with the remaining and the total number of bytes, 0 if unknown; may raise.
        attempts: number of consecutive attempts without progress before giving up.
        pause: delay in seconds before the second of these attempts; doubles each time.

    Returns:
        The complete .part file; its checksum is not verified yet.

    Raises:
        UnreachableError: the server does not answer, refuses the request, or sends a different file.
    """
    part = part_file(archive, folder)
    with _on_disk(part):
        folder.mkdir(parents=True, exist_ok=True)
    furthest = part.stat().st_size if part.exists() else 0
    failures = 0
    while True:
        try:
            _receive(archive, part, require_space)
            return part
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"{error.code} {error.reason}"
            if error.code not in _TRANSIENT:
                raise UnreachableError(f"{archive.url} answers {reason}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error) or type(error).__name__)
        size = part.stat().st_size if part.exists() else 0
        failures = 0 if size > furthest else failures + 1
        furthest = max(furthest, size)
        if failures >= attempts:
            kept = f"; {size} bytes are kept in {part}, and the same command resumes the download" if size else ""
            raise UnreachableError(f"{archive.url} cannot be reached ({reason}){kept}")
        _log.info("%s: %s; retrying", archive.file, reason)
        time.sleep(pause * 2 ** max(0, failures - 1))


def remove_part(archive: Archive, folder: Path) -> None:
    """Remove the .part file of an archive."""
    part = part_file(archive, folder)
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def require_checksum(archive: Archive, file: Path, accepted: str = "") -> None:
    """Compare the checksum of a complete archive with the published one.

    Args:
        archive: the description of the archive.
        file: the archive on disk.
        accepted: another checksum that the user trusts.

    Raises:
        UserError: the checksums differ; the message gives both, and says how reliable the published one is.
    """
    if not archive.md5:
        return
    actual = md5(file)
    if actual in (archive.md5, accepted.lower()):
        return
    message = f"{file}: md5 is {actual}, expected {archive.md5} for {archive.url}"
    if archive.confirmed:
        raise UserError(f"{message}: the file is damaged or was modified in transit; download it again")
    raise UserError(
        f"{message}: the file is damaged or was modified, or the expected checksum, which comes from a single source, is out of date; "
        f"remove the file and download it again, or add --accept-md5 {actual} if you trust it"
    )


def md5(file: Path) -> str:
    """Compute the MD5 checksum of a file, in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream, _bar(f"checking {file.name}", file.stat().st_size, 0) as bar:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _receive(archive: Archive, part: Path, require_space: Callable[[int, int], None]) -> None:
    """Make one request: append the missing bytes to the .part file, or start over if the file changed or is sent as a whole.

    Raises:
        OSError, http.client.HTTPException: the connection broke; the received bytes are kept.
        UnreachableError: the server sends a different file.
    """
    started = _read_note(part, archive.url)
    have = part.stat().st_size if started and part.exists() else 0
    if started and have and have == started.total:
        return
    # Without a validator, the partial file could belong to another version: start over.
    ranged = have > 0 and started is not None and bool(started.validator)
    headers = {"User-Agent": "irformer", "Accept-Encoding": "identity"}
    if ranged and started is not None:
        headers |= {"Range": f"bytes={have}-", "If-Range": started.validator}
    try:
        response = urllib.request.urlopen(urllib.request.Request(archive.url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not ranged:
            raise
        error.close()
        part.unlink()  # it is longer than the file on the server
        raise ConnectionError("the file on the server is shorter than the partial download") from None
    with response:
        first, total = _extent(response)
        now = _Started(archive.url, _validator(response), total)
        _require_archive(archive, response, total)
        if response.status == 206 and (first != have or started is None or _differ(now, started)):
            part.unlink()
            raise ConnectionError("the file on the server has changed")
        if response.status != 206:
            have = 0
            with _on_disk(part):
                part.write_bytes(b"")  # before the note, so a note never describes the bytes of another file
                _write_note(part, now)
        size = total or archive.size or 0
        require_space(max(0, size - have), size)
        with _on_disk(part):
            file = part.open("ab")
        with file, _bar(archive.file, total, have) as bar:
            while chunk := response.read1(_CHUNK):  # returns available bytes at once, so an interruption loses less
                with _on_disk(part):
                    file.write(chunk)
                bar.update(len(chunk))
                have += len(chunk)
    if total is not None and have != total:
        raise ConnectionError(f"the connection broke off after {have} of {total} bytes")
    if total is None:
        _write_note(part, _Started(archive.url, now.validator, have))


@contextmanager
def _on_disk(part: Path) -> Iterator[None]:
    """Convert disk errors inside the block to user errors, so they are not treated as a broken connection."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{part} cannot be written: {error.strerror or error}") from None


def _differ(now: _Started, started: _Started) -> bool:
    """Return whether a response belongs to another version of the file; values that the server omits are ignored."""
    return (now.validator or started.validator) != started.validator or (now.total or started.total) != started.total


def _extent(response: Any) -> tuple[int, int | None]:
    """Return the offset of a response within the file, and the size of the whole file."""
    if response.status == 206:
        span, _, length = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = span.partition("-")[0]
        return (int(first) if first.isdigit() else -1), (int(length) if length.isdigit() else None)
    length = response.headers.get("Content-Length", "")
    return 0, (int(length) if length.isdigit() else None)


def _validator(response: Any) -> str:
    """Return what identifies this version of the file: a strong ETag, or else the modification date (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _require_archive(archive: Archive, response: Any, total: int | None) -> None:
    if response.headers.get_content_type() == "text/html":
        raise UnreachableError(f"{archive.url} answers with a web page instead of the file")
    if archive.exact and total is not None and total != archive.size:
        raise UnreachableError(f"{archive.url} has {total} bytes, expected {archive.size}: it is a different file")


def _note(part: Path) -> Path:
    return part.with_name(f"{part.stem}.from.part")


def _write_note(part: Path, started: _Started) -> None:
    write_atomically(_note(part), lambda path: path.write_text(json.dumps(asdict(started))))


def _read_note(part: Path, url: str) -> _Started | None:
    try:
        started = _Started(**json.loads(_note(part).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return started if started.url == url else None


def _bar(title: str, total: int | None, initial: int) -> tqdm:
    """Return a progress bar in bytes, shown only on a terminal."""
    return tqdm(desc=title, total=total, initial=initial, unit="B", unit_scale=True, unit_divisor=1000, disable=None)
