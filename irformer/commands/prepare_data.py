"""List, download, pack and verify the public data sets: python scripts/prepare_data.py list | download | pack | verify."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from tqdm import tqdm

from irformer.commands import command_line
from irformer.commands.common import reporting_user_errors
from irformer.core.words import nearest
from irformer.data.inventory import FACTORS, clean_folder, count_images, degraded_folder, wrong_names
from irformer.data.packing import pack_set, verify_set
from irformer.data.store import INDEX
from irformer.datasets.archives import require_space, unpack
from irformer.datasets.catalog import SAMPLE, SAMPLE_TRAIN, SAMPLE_VAL, TEST_SETS, TRAINING_SETS
from irformer.datasets.downloads import UnreachableError, fetch, remove_part, require_checksum
from irformer.datasets.origins import GROUPS, ORIGINS, Archive
from irformer.errors import UserError


def prepare_data() -> None:
    """List, download, pack and check the public data sets: python scripts/prepare_data.py list."""
    arguments = command_line.prepare_data().parse_args()
    with reporting_user_errors():
        try:
            if arguments.do == "list":
                _list(arguments.data, arguments.packed)
            elif arguments.do == "download":
                _download(_resolve(arguments.names), arguments.scales, arguments.data, arguments.accept_md5)
            elif arguments.do == "pack":
                _pack(_resolve(arguments.names, folders=True), arguments.data, arguments.packed, arguments.lq)
            else:
                _verify(_resolve(arguments.names, folders=True), arguments.data, arguments.packed, arguments.lq)
        except KeyboardInterrupt:
            resumable = ": received data is kept in .part files, and the same command resumes" if arguments.do == "download" else ""
            print(f"\nstopped{resumable}", file=sys.stderr)
            sys.exit(130)


def _resolve(words: Sequence[str], folders: bool = False) -> list[str]:
    """Resolve names, aliases (in any case) and groups to sets; with `folders`, also accept folders.

    Raises:
        UserError: there is no such set.
    """
    known: dict[str, tuple[str, ...]] = {
        alias.lower(): (name,) for name, aliases in TEST_SETS.items() if name in ORIGINS for alias in aliases
    }
    known |= {name.lower(): (name,) for name in ORIGINS}
    known |= {name.lower(): sets for name, sets in GROUPS.items()}
    names: dict[str, None] = {}
    for word in words:
        if word.lower() == SAMPLE:
            raise UserError("sample comes with scikit-image and is always available")
        if word.lower() not in known and folders and Path(word).is_dir():
            names[word] = None
            continue
        if word.lower() not in known:
            everything = [*ORIGINS, *GROUPS]
            or_folder = ", or the path of a folder" if folders else ""
            raise UserError(f"unknown set {word}; known: {', '.join(everything)}{or_folder}{nearest(word, everything)}")
        names |= dict.fromkeys(known[word.lower()])
    return list(names)


def _list(root: Path, packed: Path | None) -> None:
    table = Table(title=f"Public data sets in {root.absolute()}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("set", "for", "images", "on disk", "size", "terms", "source"):
        table.add_column(column, justify="right" if column in ("images", "size") else "left", overflow="fold")
    pages: dict[str, int] = {}
    for name, origin in ORIGINS.items():
        archive = origin.archives[0] if origin.archives else None
        present = _on_disk(name, root) + (", packed" if ((packed or root / "packed") / name / INDEX).is_file() else "")
        way = "download" if archive else f"by hand, {pages.setdefault(origin.page, len(pages) + 1)}"
        table.add_row(name, origin.use, str(origin.images), present, _size(archive) if archive else "", origin.terms, way)
    photos = str(len(SAMPLE_TRAIN) + len(SAMPLE_VAL))
    table.add_row(SAMPLE, "a first run", photos, "comes with scikit-image", "", "CC0 or public domain", "")
    # In a file or pipe, give the columns enough width.
    Console(width=None if sys.stdout.isatty() else 240).print(table)
    for page, number in pages.items():
        print(f" by hand, {number}: {page}")
    print(" download: python scripts/prepare_data.py download NAME [NAME ...]")
    print(f" groups: {'; '.join(f'{group} = ' + ', '.join(sets) for group, sets in GROUPS.items())}")
    print(" terms are summaries; only those of the publishers are binding")


def _on_disk(name: str, root: Path) -> str:
    """Describe which images of a set are on disk, and in which folder."""
    clean = clean_folder(name, root)
    count = count_images(clean)
    if clean is None or not count:
        return "no"
    expected = ORIGINS[name].images
    words = [f"{count} in {clean.relative_to(root)}" if count == expected else f"{count} of {expected} in {clean.relative_to(root)}"]
    if count_images(degraded_folder(name, root, 1)):
        words.append("with input")
    factors = [f"X{scale}" for scale in FACTORS if count_images(degraded_folder(name, root, scale))]
    if factors:
        words.append(f"LR {' '.join(factors)}")
    return ", ".join(words)


def _size(archive: Archive) -> str:
    if archive.size is None:
        return "?"
    return decimal(archive.size) if archive.exact else f"~{decimal(archive.size)}"


def _download(names: Sequence[str], scales: Sequence[int], root: Path, accepted: str) -> None:
    """Download archives one after the other; if one fails, continue with the others."""
    failures, jobs = [], []
    for name in names:
        offered = ORIGINS[name].archives
        if not offered:
            failures.append(f"{name} cannot be downloaded automatically: {_by_hand(name, root)}")
        elif scales and not any(archive.scale for archive in offered):
            print(f"{name}: has no separate LR archives; missing LR images are made on the fly, with identical bytes")
        jobs += [(name, archive) for archive in offered if archive.scale is None or archive.scale in scales]
    spent: list[Archive] = []
    for i, (name, archive) in enumerate(jobs):
        try:
            if not _is_there(name, archive, root):
                spent.append(_obtain(name, archive, root, accepted))
        except UserError as error:
            failures.append(" ".join(str(error).split()))
        later = {archive.url for _, archive in jobs[i + 1 :]}  # one archive may hold several of the sets
        for done in spent:
            if done.url not in later:
                remove_part(done, root)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        sys.exit(1)


def _obtain(name: str, archive: Archive, root: Path, accepted: str) -> Archive:
    """Download an archive or a mirror of it, and unpack the images of a set; return the archive that was used."""
    origin = ORIGINS[name]
    used, file = _get(name, (archive, *(origin.mirrors if archive.scale is None else ())), root, accepted)
    for folder in unpack(file, [part for part in used.parts if part.of == name], root):
        print(f"{name}: {count_images(folder)} images in {folder}")
    if archive.scale is None:
        print(f"{name}: {origin.terms}; see {origin.page}")
    return used


def _is_there(name: str, archive: Archive, root: Path) -> bool:
    """Return whether the images of an archive are already on disk, in any folder layout.

    Raises:
        UserError: only some of them are.
    """
    folder = degraded_folder(name, root, archive.scale) if archive.scale else clean_folder(name, root)
    count, expected = count_images(folder), ORIGINS[name].images
    if count == expected:
        print(f"{name}: already on disk, {count} images in {folder}")
    elif count:
        raise UserError(
            f"{folder} contains {count} images, expected {expected} of {name}: it is not changed; "
            "move it elsewhere, then run the same command again"
        )
    return count > 0


def _get(name: str, archives: Sequence[Archive], root: Path, accepted: str) -> tuple[Archive, Path]:
    """Return the first available archive and its file, placed in the data folder by hand or downloaded; its checksum matches."""
    for archive in archives:
        if (root / archive.file).is_file():
            require_checksum(archive, root / archive.file, accepted)
            return archive, root / archive.file
    reasons = []
    for archive in archives:
        what = f"{archive.file} (the download, and the same amount unpacked)"
        print(f"{name}: {archive.url}{', ' + _size(archive) if archive.size else ''}")
        try:
            part = fetch(archive, root, lambda missing, whole, what=what: require_space(root, missing + whole, what))  # type: ignore[misc]
        except UnreachableError as error:
            reasons.append(str(error))
            if archive is not archives[-1]:
                print(f"{name}: {error}; trying a mirror")
            continue
        try:
            require_checksum(archive, part, accepted)
        except UserError:
            if archive.confirmed:
                remove_part(archive, root)  # it is certainly damaged
            raise
        if not archive.md5:
            print(f"{name}: no checksum of {archive.file} is published: check every file with prepare_data.py verify {name}")
        return archive, part
    raise UnreachableError(f"{'; '.join(reasons)}. By hand: {_by_hand(name, root, archives[0])}")


def _by_hand(name: str, root: Path, archive: Archive | None = None) -> str:
    """Explain how to install a set, or the images of one of its archives, by hand."""
    origin = ORIGINS[name]
    if archive:
        folder = next(part.folder for part in archive.parts if part.of == name)
        return (
            f"download {archive.file} with a browser from {archive.url} or {origin.page}, move it to {root.absolute()} and run "
            f"the same command, or move the images to {root.absolute() / folder}"
        )
    if name in TRAINING_SETS:
        folders = [TRAINING_SETS[name].hq[0], *(TRAINING_SETS[name].lq[:1] if origin.pairs else ())]
    else:
        folders = [f"{name}/target", f"{name}/input"] if origin.pairs else [f"{name}/HR"]
    return f"download it from {origin.page} and move its images to {' and '.join(str(root.absolute() / folder) for folder in folders)}"


def _pack(names: Sequence[str], root: Path, packed: Path | None, lq: Path | None) -> None:
    for name in names:
        with _counting(f"packing {name}") as on_progress:
            store = pack_set(name, root, packed, lq, on_progress)
        print(f"{name}: packed into {store}, {decimal(sum(file.stat().st_size for file in store.iterdir()))}")


def _verify(names: Sequence[str], root: Path, packed: Path | None, lq: Path | None) -> None:
    """Verify sets one after the other; print one line per problem to stdout, and exit with status 1 if there are any."""
    wrong = False
    for name in names:
        lines = wrong_names(name, root)
        try:
            with _counting(f"checking {name}") as on_progress:
                lines += verify_set(name, root, packed, lq, on_progress)
        except UserError as error:
            lines.append(str(error))
        for line in lines:
            print(line)
        print(f"{name}: {len(lines)} problem{'s' if len(lines) > 1 else ''}" if lines else f"{name}: OK")
        wrong |= bool(lines)
    if wrong:
        sys.exit(1)


@contextmanager
def _counting(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a progress bar on a terminal; yield its callback, called with finished files, total, and the last file's name."""
    with tqdm(desc=title, unit="image", disable=None) as bar:

        def on_progress(done: int, total: int, name: str) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield on_progress
