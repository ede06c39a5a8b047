"""Images of every kind, cut, overwritten, blown up and mixed by chance: each gives its right pixels or one line, quietly and soon."""

import io
import struct
import time
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from irformer.errors import UserError
from irformer.imaging.decoding import native_stderr, upright
from irformer.imaging.images import SUFFIXES, decode_image, read_gray, read_header, read_image

RGB = Image.fromarray(picture(24, 36))
GRAY = RGB.convert("L")
CLEAR = Image.fromarray(np.dstack([picture(24, 36), picture(24, 36, 1, seed=1)]))
DEEP = picture(24, 36, 3, seed=2).astype(np.uint16) * 257
TURNED = Image.Exif()
TURNED[0x0112] = 6


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_opencv(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


FILES = [
    saved(RGB, "PNG"),
    saved(CLEAR, "PNG", exif=TURNED),
    saved(RGB.quantize(16), "PNG", transparency=3),
    saved(GRAY, "PNG", transparency=100),
    by_opencv(".png", DEEP),
    saved(RGB, "JPEG", exif=TURNED),
    saved(RGB, "JPEG", progressive=True),
    saved(GRAY, "JPEG"),
    saved(RGB, "TIFF", exif=TURNED),
    saved(RGB, "TIFF", compression="tiff_lzw"),
    saved(CLEAR, "TIFF", compression="tiff_adobe_deflate"),
    saved(RGB, "TIFF", compression="jpeg"),
    saved(GRAY.convert("1"), "TIFF", compression="group4"),
    by_opencv(".tif", DEEP),
    saved(RGB, "WEBP", lossless=True, exif=TURNED),
    saved(CLEAR, "WEBP", lossless=True, exact=True),
    saved(RGB, "WEBP"),
    saved(RGB, "BMP"),
    saved(RGB.quantize(16), "BMP"),
    by_opencv(".bmp", np.asarray(CLEAR)),
]
HUGE = [b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\0\1\0\0", b"\0\0\x7f\xff", bytes(4)]
PLACE = st.integers(0, 10**6)
EDITS = st.one_of(
    st.tuples(st.just("cut"), PLACE),
    st.tuples(st.just("flip"), st.lists(st.tuples(PLACE, st.integers(1, 255)), min_size=1, max_size=8)),
    st.tuples(st.just("header"), st.integers(0, 100), st.integers(0, 255)),
    st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("remove"), PLACE, st.integers(1, 60)),
    st.tuples(
        st.just("huge"), st.integers(0, 200), st.sampled_from([b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\0\1\0\0", b"\0\0\x7f\xff", bytes(4)])
    ),
    st.tuples(st.just("swap"), st.integers(0, len(FILES) - 1), st.integers(2, 60)),
)


def edited(data: bytes, edit: tuple) -> bytes:
    kind, *values = edit
    place = values[0] % max(1, len(data)) if isinstance(values[0], int) else 0
    if kind == "cut":
        return data[:place]
    if kind == "insert":
        return data[:place] + values[1] + data[place:]
    if kind == "remove":
        return data[:place] + data[place + values[1] :]
    if kind == "huge":
        return data[:place] + values[1] + data[place + 4 :]
    if kind == "header":
        return data[:place] + bytes([values[1]]) + data[place + 1 :]
    if kind == "swap":
        return FILES[values[0]][: values[1]] + data[values[1] :]
    changed = bytearray(data)
    for where, bits in values[0]:
        if changed:
            changed[where % len(changed)] ^= bits
    return bytes(changed)


def with_right_checksums(data: bytes) -> bytes:
    """A PNG as a program would write it that means what the chunks say: otherwise its checksums betray nearly every change."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, place = bytearray(data), 8
    while place + 12 <= len(out):
        length = int.from_bytes(out[place : place + 4], "big")
        end = place + 8 + length
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[place + 4 : end]))
        place = end + 4
    return bytes(out)


def independent(data: bytes) -> np.ndarray | None:
    """RGB by the decoder that `read_image` does not use for the format, or None where that one refuses the file."""
    with native_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if data[:4] in (b"II*\0", b"MM\0*") or data[:2] == b"BM":
                pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                return None if pixels is None else pixels[..., ::-1]
            return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        except Exception:
            return None


def right_or_refused(path: Path, attempts) -> str:
    """Try all readers on a file; 'read' where `read_image` gave its right pixels, 'refused' where it raised one line."""
    outcomes = {}
    for read in (read_header, decode_image, read_image, read_gray):
        started, refusal = time.monotonic(), None
        try:
            with native_stderr() as noise, warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                outcomes[read] = read(path)
            attempts.handled("image files")
        except UserError as error:
            refusal = str(error)
            attempts.refused("image files")
        assert refusal is None or (refusal.startswith(f"{path}: ") and "\n" not in refusal)
        assert time.monotonic() - started < 20
        assert not told
        assert not [line for line in noise if "OpenCV(" in line or ".cpp" in line or "Traceback" in line or "assert" in line.lower()]
    if read_image not in outcomes:
        return "refused"
    pixels = outcomes[read_image]
    # What one reads, all read, and alike.
    assert pixels.shape == (outcomes[read_header].height, outcomes[read_header].width, 3)
    assert np.array_equal(np.broadcast_to(outcomes[decode_image].pixels, pixels.shape), pixels)
    assert outcomes[read_gray].shape == (*pixels.shape[:2], 1)
    expected = independent(path.read_bytes())
    if expected is not None:
        # How the pixels are turned is another matter (test_image_kinds.py): of damaged EXIF data every reader makes something else.
        assert any(np.array_equal(upright(expected, orientation), pixels) for orientation in range(1, 9))
    return "read"


CASES = st.tuples(st.sampled_from(FILES), st.lists(EDITS, min_size=0, max_size=3), st.booleans(), st.sampled_from(SUFFIXES))


def check(case: tuple, folder: Path, attempts, outcomes: dict[str, int]) -> None:
    data, edits, repaired, suffix = case
    for edit in edits:
        data = edited(data, edit)
    path = folder / f"mutated{suffix}"
    path.write_bytes(with_right_checksums(data) if repaired else data)
    outcome = right_or_refused(path, attempts)
    outcomes[outcome] = outcomes.get(outcome, 0) + 1


def run(examples: int, folder: Path, attempts) -> dict[str, int]:
    outcomes: dict[str, int] = {}
    quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=quiet)
    @given(CASES)
    def mutate(case):
        check(case, folder, attempts, outcomes)

    mutate()
    return outcomes


def test_some_mutated_images(tmp_path, attempts):
    outcomes = run(40, tmp_path, attempts)
    assert min(outcomes.values()) >= 5  # of both outcomes there are some


@pytest.mark.slow
def test_many_mutated_images(tmp_path, attempts):
    outcomes = run(1000, tmp_path, attempts)
    assert sum(outcomes.values()) >= 400
    assert min(outcomes.values()) >= 100


@pytest.mark.parametrize("number", range(len(FILES)))
def test_unmutated_they_are_read(tmp_path, attempts, number):
    (tmp_path / "a.png").write_bytes(FILES[number])
    assert decode_image(tmp_path / "a.png").pixels.shape[:2] in [(24, 36), (36, 24)]
    right_or_refused(tmp_path / "a.png", attempts)
