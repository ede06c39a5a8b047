"""Files over HTTP that survive a broken line: what has arrived stays in NAME.part, and the next try goes on behind it."""

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
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses of troubles that pass


class UnreachableError(UserError):
    """A file cannot be had from its address: the message says why, not what to do instead, which depends on the set."""


@dataclass(frozen=True)
class _Started:
    """Which file the .part is a beginning of, kept beside it."""

    url: str
    validator: str  # strong ETag or date of the last change, as the server gave it; empty where it gave none
    total: int | None  # length of the whole file in bytes


def part_file(archive: Archive, folder: Path) -> Path:
    """Where an archive grows while it is downloaded."""
    return folder / f"{archive.file}.part"


def fetch(
    archive: Archive,
    folder: Path,
    require_space: Callable[[int, int], None],
    attempts: int = 4,
    pause: float = 2.0,
) -> Path:
    """Download an archive, from where an earlier try stopped.

    Args:
        archive: what to fetch.
        folder: where its .part file lies.
        require_space: called with the bytes still to come and those of the whole file, 0 where nobody knows; may refuse.
        attempts: tries in a row that bring nothing further until we give up.
        pause: seconds before the second of them; doubles each time.

    Returns:
        the complete .part file, its sum not yet checked.

    Raises:
        UnreachableError: the server does not answer, refuses, or offers something else.
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
            if error.code not in _PASSING:
                raise UnreachableError(f"{archive.url} answers {reason}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error) or type(error).__name__)
        size = part.stat().st_size if part.exists() else 0
        failures = 0 if size > furthest else failures + 1
        furthest = max(furthest, size)
        if failures >= attempts:
            stays = f"; {size} bytes stay in {part}, and the same command goes on from there" if size else ""
            raise UnreachableError(f"{archive.url} cannot be reached ({reason}){stays}")
        _log.info("%s: %s; trying again", archive.file, reason)
        time.sleep(pause * 2 ** max(0, failures - 1))


def remove_part(archive: Archive, folder: Path) -> None:
    """Forget what was downloaded of an archive."""
    part = part_file(archive, folder)
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def require_sum(archive: Archive, file: Path, accepted: str = "") -> None:
    """Compare the sum of a complete archive with the published one.

    Args:
        archive: what is known of it.
        file: the archive on disk.
        accepted: a sum that the user trusts too.

    Raises:
        UserError: they differ; says which file, both sums, and how sure the published one is.
    """
    if not archive.md5:
        return
    actual = md5(file)
    if actual in (archive.md5, accepted.lower()):
        return
    message = f"{file}: md5 is {actual}, expected {archive.md5} for {archive.url}"
    if archive.confirmed:
        raise UserError(f"{message}: the file is damaged or was changed on its way; download it again")
    raise UserError(
        f"{message}: the file is damaged or was changed, or the expected sum, which comes from a single source, is out of date; "
        f"remove the file and download it again, or add --accept-md5 {actual} where you trust it"
    )


def md5(file: Path) -> str:
    """The md5 sum of a file, in hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream, _bar(f"checking {file.name}", file.stat().st_size, 0) as bar:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _receive(archive: Archive, part: Path, require_space: Callable[[int, int], None]) -> None:
    """One request: append to the .part what is missing, or start over where the server has another file or sends all of it.

    Raises:
        OSError, http.client.HTTPException: the line broke; what has arrived stays.
        UnreachableError: the server offers something else.
    """
    started = _read_note(part, archive.url)
    have = part.stat().st_size if started and part.exists() else 0
    if started and have and have == started.total:
        return
    # A beginning that nothing can be compared with could belong to another file: without a validator we start over.
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
        part.unlink()  # longer than the file on the server, whatever it is
        raise ConnectionError("the file on the server is shorter than what had arrived") from None
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
                part.write_bytes(b"")  # before the note, so that no note ever stands beside another file's bytes
                _write_note(part, now)
        size = total or archive.size or 0
        require_space(max(0, size - have), size)
        with _on_disk(part):
            file = part.open("ab")
        with file, _bar(archive.file, total, have) as bar:
            while chunk := response.read1(_CHUNK):  # what is there: less is lost when we are stopped
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
    """Tell a full or closed disk from a broken line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{part} cannot be written: {error.strerror or error}") from None


def _differ(now: _Started, started: _Started) -> bool:
    """Whether a server's answer belongs to another version of the file; what it leaves unsaid does not count."""
    return (now.validator or started.validator) != started.validator or (now.total or started.total) != started.total


def _extent(response: Any) -> tuple[int, int | None]:
    """Where the answer begins in the file, and how long the whole file is."""
    if response.status == 206:
        span, _, length = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = span.partition("-")[0]
        return (int(first) if first.isdigit() else -1), (int(length) if length.isdigit() else None)
    length = response.headers.get("Content-Length", "")
    return 0, (int(length) if length.isdigit() else None)


def _validator(response: Any) -> str:
    """What tells this version of the file from others: a strong ETag, or else the date of its last change (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _require_archive(archive: Archive, response: Any, total: int | None) -> None:
    if response.headers.get_content_type() == "text/html":
        raise UnreachableError(f"{archive.url} answers with a web page in place of the file")
    if archive.exact and total is not None and total != archive.size:
        raise UnreachableError(f"{archive.url} offers {total} bytes, expected {archive.size}: it is another file")


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
    """A progress bar in bytes, where there is a terminal to show it on."""
    return tqdm(desc=title, total=total, initial=initial, unit="B", unit_scale=True, unit_divisor=1000, disable=None)
