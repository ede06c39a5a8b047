"""Images that stand in the training set and in a test set: a number measured on them is worth nothing."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from irformer.data.images import fingerprint, read_header, read_image
from irformer.data.sources import TrainingImages
from irformer.data.test_sets import TestSet
from irformer.errors import UserError
from irformer.files import write_atomically


class Fingerprints:
    """Fingerprints of image files, kept in a small file so that the next start need not decode them again.

    Args:
        file: where they are kept, by path, size and time of the last change.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._known: dict[str, str] = {}
        if file.is_file():
            try:
                self._known = dict(json.loads(file.read_text(encoding="utf-8")))
            except ValueError:
                self._known = {}  # an unreadable file of what can be computed again
        self._changed = False

    def of(self, path: Path) -> str:
        """The fingerprint of an image file."""
        status = path.stat()
        key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
        if key not in self._known:
            self._known[key] = fingerprint(read_image(path))
            self._changed = True
        return self._known[key]

    def save(self) -> None:
        """Write what has been added."""
        if self._changed:
            write_atomically(self.file, lambda aside: aside.write_text(json.dumps(self._known, indent=0), encoding="utf-8"))


def require_no_test_images(images: TrainingImages, test_sets: Sequence[TestSet], allowed: Sequence[str], cache: Path) -> None:
    """See that no training image is, pixel for pixel or flipped or turned, a clean image of a test set.

    Only images of equal sizes are decoded, and each file once.

    Args:
        images: the training set.
        test_sets: those that the run is validated and measured on.
        allowed: names of test sets (`B100`) or of their images (`B100/101085`) that may be trained on.
        cache: file that keeps fingerprints for the next start.

    Raises:
        UserError: a test image is among the training images; both files are named, and the key that allows it.
    """
    tested: dict[tuple[int, ...], dict[Path, str]] = defaultdict(dict)
    for test_set in test_sets:
        for pair in test_set.pairs:
            if test_set.name not in allowed and f"{test_set.name}/{pair.name}" not in allowed:
                header = read_header(pair.hq)
                cut = (header.height - header.height % images.scale, header.width - header.width % images.scale)
                tested[tuple(sorted(cut))].setdefault(pair.hq, f"{test_set.name}/{pair.name}")
    fingerprints = Fingerprints(cache)
    known: dict[tuple[int, ...], dict[str, Path]] = {}
    hits = []
    for i in range(len(images)):
        sides = tuple(sorted(images.size(i)))
        if sides not in tested:
            continue
        if sides not in known:
            known[sides] = {fingerprints.of(path): path for path in tested[sides]}
        found = known[sides].get(images.fingerprint(i) or fingerprints.of(Path(images.name(i))))
        if found is not None:
            hits.append((images.name(i), found, tested[sides][found]))
    fingerprints.save()
    if hits:
        trained, file, test_image = hits[0]
        more = f", and {len(hits) - 1} more" if len(hits) > 1 else ""
        raise UserError(
            f"training image {trained} is the test image {test_image} ({file}){more}: train or test on something else, or allow it by "
            f"data.allow_test_images=[{test_image.split('/')[0]}] (a set) or [{test_image}] (an image)"
        )
