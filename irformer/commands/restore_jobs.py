"""Mapping of input images to output files, determined before anything is read or written."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from irformer.errors import UserError
from irformer.imaging.images import SUFFIXES, printable


@dataclass(frozen=True)
class Job:
    """An input image and its output file."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """The images to restore.

    Args:
        jobs: in the order of the inputs, sorted within folders.
        ignored: number of files in the input folders without an image suffix.
    """

    jobs: list[Job]
    ignored: int


def plan(inputs: Sequence[Path], output: Path) -> Plan:
    """Determine the output file of every input image.

    Args:
        inputs: image files, and folders of them; subfolders are included, hidden files and folders are not.
        output: a file for a single image, if it has an image suffix and is not a folder; a folder otherwise.

    Raises:
        UserError: an input does not exist, is not an image or contains none; an output would overwrite an input; or two inputs would have
            the same output.
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
        raise UserError(f"{output}: has an image suffix, expected a folder, since {what}")
    places: dict[Path, Path] = {}  # by source: path of the output relative to `output`, with the suffix of the source
    ignored = 0
    for path in inputs:
        if not path.is_dir():
            places.setdefault(path, Path(path.name))
            continue
        if _is_within(output, path):
            raise UserError(
                f"{output}: is inside the input folder {path}, and would be read as input next time; choose a folder outside it"
            )
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
    """Yield the files below a folder, sorted; links to folders are followed, unless they point to one of their parents."""
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
    """Check that no output is an input, under any name, and that no two outputs are the same file."""
    sources = {}
    for job in jobs:
        if (key := _file_key(job.source)) is not None:
            sources[key] = job.source
    targets: dict[Path, Path] = {}
    for job in jobs:
        if job.target in targets:
            raise UserError(f"{targets[job.target]} and {job.source} would both become {job.target}: restore them to different folders")
        targets[job.target] = job.source
        key = _file_key(job.target)
        if key in sources:
            name = "itself an input" if job.target == sources[key] else f"the same file as the input {sources[key]}"
            raise UserError(f"{job.target}: is {name}, which would be overwritten; choose another OUTPUT")


def _file_key(path: Path) -> tuple[int, int] | None:
    """Identify a file independently of its name, following links; return None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_within(path: Path, folder: Path) -> bool:
    """Return whether a path is a folder or inside it, following links; the path need not exist."""
    real = Path(os.path.realpath(path))
    return any(parent.exists() and parent.samefile(folder) for parent in (real, *real.parents))


def named(error: Exception, path: Path) -> str:
    """Format an error as one printable line that names the file."""
    line = " ".join(str(error).split()) or type(error).__name__
    return printable(line if str(path) in line else f"{path}: {line}")
