"""Mapping of input images to output files, determined before anything is read or written."""

import glob
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
class Naming:
    """How outputs in a folder are named.

    Args:
        format: png, jpg, webp, tif or bmp; `same` keeps the suffix of each input.
        suffix: added to the name before its suffix.
    """

    format: str = "png"
    suffix: str = ""

    def name(self, place: Path, whole: bool = False) -> Path:
        """Return the name of an output.

        Args:
            place: path of the input.
            whole: whether to keep the input's suffix as part of the name: a.jpg becomes a.jpg.png.
        """
        ending = place.suffix if self.format == "same" else f".{self.format}"
        return place.with_name(f"{place.name if whole else place.stem}{self.suffix}{ending}")


@dataclass(frozen=True)
class Plan:
    """The images to restore.

    Args:
        jobs: in the order of the inputs, sorted within folders.
        ignored: number of files in the input folders without an image suffix.
    """

    jobs: list[Job]
    ignored: int


@dataclass(frozen=True)
class _Input:
    """A file or folder that was given, or that a pattern matched.

    Args:
        path: the file or folder.
        place: path of its output below OUTPUT, with the suffix of the input; of a folder, that of its tree.
        required: whether a file that is not an image is an error.
    """

    path: Path
    place: Path
    required: bool = True


def plan(inputs: Sequence[Path], output: Path, naming: Naming = Naming()) -> Plan:
    """Determine the output file of every input image.

    Args:
        inputs: image files, folders of them, and patterns such as `photos/**/*.jpg`; subfolders are included, hidden files and folders
            are not.
        output: a file for a single image, if it has an image suffix and is not a folder; a folder otherwise.
        naming: how outputs in a folder are named.

    Raises:
        UserError: an input does not exist, is not an image or contains none; an output would overwrite an input; or two inputs would have
            the same output.
    """
    found = [single for path in inputs for single in _expanded(path, len(inputs) > 1, output)]
    for item in found:
        if item.required and not item.path.is_dir() and item.path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{item.path}: unknown image format; known: {', '.join(SUFFIXES)}")
    if len(inputs) == 1 and os.path.lexists(inputs[0]) and not inputs[0].is_dir() and not output.is_dir() and output.suffix:
        if output.suffix.lower() not in SUFFIXES:
            raise UserError(f"{output}: unknown image format; known: {', '.join(SUFFIXES)}")
        if naming != Naming():
            option = "--suffix" if naming.suffix else "--format"
            raise UserError(f"{option}: OUTPUT names the file {output}, expected a folder; choose a folder or omit {option}")
        planned = Plan([Job(inputs[0], output)], 0)
    else:
        what = f"{inputs[0]} is a folder" if len(inputs) == 1 else f"there are {len(inputs)} inputs"
        what = f"{inputs[0]} is a pattern" if len(inputs) == 1 and not os.path.lexists(inputs[0]) else what
        planned = _into_folder(found, output, naming, what)
    _require_apart(planned.jobs)
    return planned


def _expanded(path: Path, several: bool, output: Path) -> Iterator[_Input]:
    """Yield what a path or a pattern names. The shell usually expands patterns, but not quoted ones, and Windows has no such shell."""
    if os.path.lexists(path):
        top = Path(os.path.basename(os.path.abspath(path)))  # noqa: PTH119, PTH100 - also of `..`
        yield _Input(path, top if several or not path.is_dir() else Path())
        return
    pattern = str(path)
    if not glob.has_magic(pattern):
        raise UserError(f"{path}: no such file or folder; expected an image or a folder of images")
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute patterns
    if not matches:
        raise UserError(f"{path}: no file matches this pattern")
    fixed = Path(*path.parts[: next(i for i, part in enumerate(path.parts) if glob.has_magic(part))])
    if "**" in path.parts and _is_within(output, fixed):
        raise UserError(f"{output}: is inside {fixed}, where {path} would find it as input next time; choose a folder outside it")
    for match in matches:
        yield _Input(Path(match), Path(match).relative_to(fixed), required=False)


def _into_folder(inputs: Sequence[_Input], output: Path, naming: Naming, what: str) -> Plan:
    if os.path.lexists(output) and not output.is_dir():
        raise UserError(f"{output}: is a file, expected a folder, since {what}")
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        raise UserError(f"{output}: has an image suffix, expected a folder, since {what}")
    places: dict[Path, Path] = {}  # by source: path of the output relative to `output`, with the suffix of the source
    ignored: set[Path] = set()
    for item in inputs:
        if not item.path.is_dir():
            if item.path.suffix.lower() in SUFFIXES:
                places.setdefault(item.path, item.place)
            else:
                ignored.add(item.path)
            continue
        if _is_within(output, item.path):
            raise UserError(
                f"{output}: is inside the input folder {item.path}, and would be read as input next time; choose a folder outside it"
            )
        files = list(_files(item.path))
        images = [file for file in files if file.suffix.lower() in SUFFIXES]
        for file in images:
            places.setdefault(file, item.place / file.relative_to(item.path))
        ignored.update(set(files) - set(images))
        if item.required and not images:
            raise UserError(f"{item.path}: no images ({', '.join(SUFFIXES)}) in this folder and its subfolders")
    if not places:
        raise UserError(f"no images ({', '.join(SUFFIXES)}) among the {len(ignored)} files of the inputs")
    shared = Counter(naming.name(place) for place in places.values())
    jobs = [Job(source, output / naming.name(place, whole=shared[naming.name(place)] > 1)) for source, place in places.items()]
    return Plan(jobs, len(ignored))


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


def _require_apart(jobs: Sequence[Job]) -> None:
    """Check that no output is an input, under any name, that no two outputs are the same file, and that none is a folder."""
    sources = {}
    for job in jobs:
        if (key := _file_key(job.source)) is not None:
            sources[key] = job.source
    targets: dict[Path, Path] = {}
    for job in jobs:
        place = Path(os.path.realpath(job.target.parent)) / job.target.name  # folders of OUTPUT may be links to each other
        if place in targets:
            raise UserError(f"{targets[place]} and {job.source} would both become {job.target}: restore them to different folders")
        targets[place] = job.source
        key = _file_key(job.target)
        if key in sources:
            name = "itself an input" if job.target == sources[key] else f"the same file as the input {sources[key]}"
            raise UserError(f"{job.target}: is {name}, which would be overwritten; choose another OUTPUT")
        if job.target.is_dir():
            raise UserError(f"{job.target}: is a folder, expected the output of {job.source}; move it, or choose another OUTPUT")


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
