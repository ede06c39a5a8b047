"""Which image is restored into which file, decided before anything is read or written."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from irformer.errors import UserError
from irformer.imaging.images import SUFFIXES, printable


@dataclass(frozen=True)
class Job:
    """An image file, and the file that it is restored into."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """What is restored into what.

    Args:
        jobs: in the order of the inputs, sorted within folders.
        ignored: files of the input folders that are no images by their suffix.
    """

    jobs: list[Job]
    ignored: int


def plan(inputs: Sequence[Path], output: Path) -> Plan:
    """Name the output of every input image.

    Args:
        inputs: image files, and folders of them; subfolders are included, hidden files and folders are not.
        output: a file for a single image, if it has the suffix of an image format and is no folder; a folder otherwise.

    Raises:
        UserError: an input is missing, is no image or holds none; an output would replace an input; or two inputs would share an output.
    """
    for path in inputs:
        if not os.path.lexists(path):
            raise UserError(f"{path}: no such file or folder; expected an image or a folder of images")
        if not path.is_dir() and path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path}: unknown image format; known: {', '.join(SUFFIXES)}")
    if len(inputs) == 1 and not inputs[0].is_dir() and not output.is_dir() and output.suffix:
        if output.suffix.lower() not in SUFFIXES:
            raise UserError(f"{output}: unknown image format; known: {', '.join(SUFFIXES)}")
        found = Plan([Job(inputs[0], output)], 0)
    else:
        found = _into_folder(inputs, output)
    _require_apart(found.jobs, inputs, output)
    return found


def _into_folder(inputs: Sequence[Path], output: Path) -> Plan:
    what = f"{inputs[0]} is a folder" if len(inputs) == 1 else f"there are {len(inputs)} inputs"
    if os.path.lexists(output) and not output.is_dir():
        raise UserError(f"{output}: is a file, expected a folder, since {what}")
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        raise UserError(f"{output}: is named like an image, expected a folder, since {what}")
    places: dict[Path, Path] = {}  # by source, where it goes below output, with its suffix
    ignored = 0
    for path in inputs:
        if not path.is_dir():
            places.setdefault(path, Path(path.name))
            continue
        if _is_within(output, path):
            raise UserError(f"{output}: lies in the input folder {path}, and would be read as input next time; name a folder outside it")
        top = Path(os.path.basename(os.path.abspath(path))) if len(inputs) > 1 else Path()  # noqa: PTH119, PTH100 - also of `..`
        images = 0
        for file in _files(path):
            if file.suffix.lower() in SUFFIXES:
                places.setdefault(file, top / file.relative_to(path))
                images += 1
            else:
                ignored += 1
        if not images:
            raise UserError(f"{path}: no images ({', '.join(SUFFIXES)}) in this folder and its subfolders")
    shared = Counter(place.with_suffix(".png") for place in places.values())
    jobs = []
    for source, place in places.items():
        single = place.with_suffix(".png")
        jobs.append(Job(source, output / (single if shared[single] == 1 else place.with_name(f"{place.name}.png"))))
    return Plan(jobs, ignored)


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, sorted; links to folders are followed, but none into a folder that holds it."""
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        real = Path(os.path.realpath(place))
        holding = {real, *real.parents}
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and Path(os.path.realpath(os.path.join(place, name))) not in holding  # noqa: PTH118
        )
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None


def _require_apart(jobs: Sequence[Job], inputs: Sequence[Path], output: Path) -> None:
    """No output is an input, under whatever name, and no two outputs are one file."""
    sources = {}
    for job in jobs:
        if (key := _file_key(job.source)) is not None:
            sources[key] = job.source
    targets: dict[Path, Path] = {}
    for job in jobs:
        if job.target in targets:
            raise UserError(f"{targets[job.target]} and {job.source} would both become {job.target}: restore them into different folders")
        targets[job.target] = job.source
        key = _file_key(job.target)
        if key in sources:
            name = "itself an input" if job.target == sources[key] else f"the same file as the input {sources[key]}"
            raise UserError(f"{job.target}: is {name}, which would be lost; name another OUTPUT")


def _file_key(path: Path) -> tuple[int, int] | None:
    """What all names of a file share, links followed; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it, links followed; the path need not exist."""
    real = Path(os.path.realpath(path))
    return any(parent.exists() and parent.samefile(folder) for parent in (real, *real.parents))


def named(error: Exception, path: Path) -> str:
    """An error in one printable line that names the file."""
    line = " ".join(str(error).split()) or type(error).__name__
    return printable(line if str(path) in line else f"{path}: {line}")
