"""What lies where an image file is expected: special files, links in a circle, giants, files that go or cannot be opened."""

import json
import os
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import picture
from PIL import Image
from test_samples import super_resolution

from irformer.config.compose import compose
from irformer.config.image_sets import training_data
from irformer.data.sources import FolderImages, pair_folders
from irformer.data.test_sets import find_test_set
from irformer.errors import UserError
from irformer.evaluation.evaluate import evaluate, results_record
from irformer.evaluation.restorers import BicubicRestorer
from irformer.imaging import images
from irformer.imaging.images import decode_image, list_images, read_gray, read_header, read_image, write_image
from irformer.reporting.page import ResultTable, write_page

READERS = (read_header, decode_image, read_image, read_gray)


def refused(attempts, path: Path, message: str, readers=READERS) -> None:
    for read in readers:
        with pytest.raises(UserError) as raised:
            read(path)
        assert str(raised.value) == f"{path}: {message}"
        attempts.refused("image files")


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp"])
@pytest.mark.parametrize("read", READERS)
def test_a_file_is_opened_once(tmp_path, attempts, suffix, read):
    path = tmp_path / f"a.{suffix}"
    write_image(path, picture(20, 30))
    count = f"""
import sys
from pathlib import Path
from irformer.imaging.images import {read.__name__}
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
{read.__name__}(Path({str(path)!r}))
print(opened.count(Path({str(path)!r})) + opened.count({str(path)!r}))
"""
    assert subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True).stdout == "1\n"
    attempts.handled("image files")


def test_special_files_are_named_at_once(tmp_path, attempts):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))
    for name, kind in [("pipe.png", "a named pipe"), ("folder.png", "a folder"), ("device.png", "a device")]:
        refused(attempts, tmp_path / name, f"{kind}, expected an image file: choose another path, or put a file there")
    refused(attempts, tmp_path / "s.png", "cannot be read (No such device or address): restore or remove the file")


def test_links_in_a_circle_are_named(tmp_path, attempts):
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "b.png").symlink_to("a.png")
    paths = list_images(tmp_path, "")
    assert [path.name for path in paths] == ["a.png", "b.png"]
    refused(attempts, paths[0], "cannot be read (Too many levels of symbolic links): restore or remove the file")


def test_files_without_permission_are_named(tmp_path, attempts):
    write_image(tmp_path / "a.png", picture(8, 8))
    (tmp_path / "a.png").chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # what root may, others may not
    try:
        refused(attempts, tmp_path / "a.png", "cannot be read (Permission denied): restore or remove the file")
    finally:
        os.seteuid(user)


def test_a_file_that_goes_or_is_replaced_during_training_is_named(tmp_path, attempts):
    for name in "ab":
        write_image(tmp_path / f"{name}.png", picture(40, 60))
    training = FolderImages(pair_folders(tmp_path, None, 2), 2)
    (tmp_path / "a.png").unlink()
    write_image(tmp_path / "b.png", picture(20, 60))
    refused(attempts, tmp_path / "a.png", "no such file", [lambda _path: training.hq(0)])
    message = "60x20 pixels, expected 60x40 as at the start of training: the file was replaced; restore it, or start a new run"
    refused(attempts, tmp_path / "b.png", message, [lambda _path: training.hq(1)])


def test_a_file_that_is_replaced_while_it_is_read_gives_the_pixels_that_it_had(tmp_path, attempts, monkeypatch):
    path = tmp_path / "a.png"
    write_image(path, picture(20, 30))
    write_image(tmp_path / "other.png", picture(30, 20, seed=1))
    parse, calls = images.parse_header, []

    def parse_then_replace(*arguments, **options):
        header = parse(*arguments, **options)
        if not calls:
            (tmp_path / "other.png").replace(path)
        calls.append(header)
        return header

    monkeypatch.setattr(images, "parse_header", parse_then_replace)
    assert np.array_equal(read_image(path), picture(20, 30))
    assert np.array_equal(read_image(path), picture(30, 20, seed=1))
    attempts.handled("image files")


def peak_of(code: str) -> tuple[str, int]:
    """What a fresh process prints, and its peak memory in MiB."""
    script = f"import resource\n{code}\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    lines = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    return "\n".join(lines[:-1]), int(lines[-1])


def test_files_that_are_too_short_for_their_size_are_refused_before_decoding(tmp_path, attempts):
    (tmp_path / "a.png").write_bytes(png_of(30_000, 30_000, zlib.compress(bytes(1 << 20))))
    size = (tmp_path / "a.png").stat().st_size
    message = f"damaged, {size} bytes cannot contain the 30000x30000 pixels that its header declares: restore or remove the file"
    refused(attempts, tmp_path / "a.png", message)


@pytest.mark.parametrize("kind", ["png", "bmp", "tif", "webp", "jpg"])
def test_giants_are_refused_by_their_header_before_anything_is_allocated(tmp_path, attempts, kind):
    path = tmp_path / f"bomb.{kind}"
    width = height = {"webp": 16383, "jpg": 65500}.get(kind, 100_000)
    limit = 1000.0 if kind != "webp" else 100.0
    if kind == "png":
        path.write_bytes(png_of(width, height, zlib.compress(bytes(1 << 20))))
    elif kind == "webp":
        Image.fromarray(picture(8, 8)).save(path, lossless=True)
        data = bytearray(path.read_bytes())
        data[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
        path.write_bytes(data)
    else:
        write_image(path, picture(8, 8))
        data = bytearray(path.read_bytes())
        if kind == "bmp":
            data[18:26] = struct.pack("<ii", width, height)
        elif kind == "jpg":
            place = data.index(b"\xff\xc0") + 5
            data[place : place + 4] = struct.pack(">HH", height, width)
        else:
            for entry in range(struct.unpack_from("<I", data, 4)[0] + 2, len(data) - 12, 12):
                if struct.unpack_from("<H", data, entry)[0] in (256, 257):
                    data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, width)
        path.write_bytes(data)
    megapixels = f"{width * height / 1e6:,.0f}"
    reading = f"""
from pathlib import Path
from irformer.imaging.images import read_header, decode_image
from irformer.errors import UserError
for read in (read_header, decode_image):
    try:
        read(Path({str(path)!r}), {limit})
    except UserError as error:
        print(error)
"""
    message = (
        f"{path}: {width}x{height} pixels ({megapixels} megapixels), expected at most {limit:g} megapixels: cut the image into parts, "
        "or, in commands with a configuration, raise data.max_megapixels"
    )
    output, peak = peak_of(reading)
    assert output == f"{message}\n{message}"
    _, idle = peak_of(reading.rpartition("for read")[0])
    assert peak < idle + 50
    attempts.refused("image files")
    attempts.refused("image files")


def test_images_beyond_pillow_s_limit_are_read(tmp_path, attempts):
    """Pillow refuses 179 megapixels and warns of 90; here a number of our own counts."""
    flat = np.full((200, 1_000_000, 1), 7, np.uint8)
    (tmp_path / "large.png").write_bytes(cv2.imencode(".png", flat, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
    header = read_header(tmp_path / "large.png")
    assert (header.height, header.width) == (200, 1_000_000)
    assert np.array_equal(read_gray(tmp_path / "large.png"), flat)
    attempts.handled("image files")
    with pytest.raises(UserError, match=r"large\.png: 1000000x200 pixels \(200 megapixels\), expected at most 150 megapixels: cut"):
        read_gray(tmp_path / "large.png", 150)
    attempts.refused("image files")


def test_the_bound_of_a_configuration_reaches_training_and_test_images(tmp_path, attempts):
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    write_image(tmp_path / "train" / "a.png", picture(100, 120))
    write_image(tmp_path / "val" / "b.png", picture(100, 120))
    task = super_resolution()

    def cfg(*overrides: str):
        return compose("train", ["data=folder", f"data.path={tmp_path / 'train'}", "norm=iln", "model=swinir_tiny", *overrides])

    assert cfg().data.max_megapixels == 1000
    training_data(cfg("data.max_megapixels=0.012"), task)
    attempts.handled("data sets")
    message = r"\.png: 120x100 pixels \(0 megapixels\), expected at most 0\.0119 megapixels: .* raise data\.max_megapixels"
    with pytest.raises(UserError, match="a" + message):
        training_data(cfg("data.max_megapixels=0.0119"), task)
    attempts.refused("data sets")
    with pytest.raises(UserError, match="b" + message):
        find_test_set(str(tmp_path / "val"), tmp_path, task, 0.0119)
    attempts.refused("data sets")


def test_several_frames_are_refused(tmp_path, attempts):
    frames = [Image.fromarray(picture(8, 8, seed=seed)) for seed in range(2)]
    for suffix in ("png", "webp", "tif"):
        path = tmp_path / f"frames.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        if suffix == "tif":
            refused(attempts, path, "several pages, expected a single image: save each page as a separate file")
        else:
            refused(attempts, path, "an animation, expected a single image: save each frame as a separate file")


def test_names_that_are_not_utf_8_are_carried_through(tmp_path, attempts):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    name = os.fsdecode(b"\xe9t\xe9.png")
    write_image(folder / name, picture(40, 44))
    assert [path.name for path in list_images(folder, "")] == [name]
    test_set = find_test_set(str(folder), tmp_path, super_resolution())
    assert (test_set.name, test_set[0].name) == (r"caf\xe9", r"\xe9t\xe9")
    result = evaluate(BicubicRestorer(2), test_set)
    record = results_record("bicubic", test_set.task, "none", [result])
    text = json.dumps(record, ensure_ascii=False)
    (tmp_path / "results.json").write_text(text, encoding="utf-8")
    assert list(json.loads((tmp_path / "results.json").read_text())["test_sets"][r"caf\xe9"]["per_image"]) == [r"\xe9t\xe9"]
    write_page(tmp_path / "report.html", str(folder), {"data": str(folder / name)}, [ResultTable("a", [test_set.name], [["1"]])])
    assert r"\udce9t\udce9.png" in (tmp_path / "report.html").read_text(encoding="utf-8")
    attempts.handled("image files")

    training = FolderImages(pair_folders(folder, None, 2), 2)
    assert np.array_equal(training.hq(0), picture(40, 44))
    (folder / name).write_bytes(b"")
    failing = f"from pathlib import Path; from irformer.imaging.images import read_image; read_image(Path({str(folder / name)!r}))"
    error = subprocess.run([sys.executable, "-c", failing], capture_output=True, check=False).stderr.decode().splitlines()[-1]
    assert error.endswith(r"caf\udce9/\udce9t\udce9.png: not a readable image (0 bytes): restore or remove the file")
    attempts.refused("image files")


def test_writing_where_nothing_can_be_written_is_named(tmp_path, attempts):
    with pytest.raises(UserError) as raised:
        write_image(tmp_path / "nowhere" / "a.png", picture(8, 8))
    assert (
        str(raised.value)
        == f"{tmp_path / 'nowhere' / 'a.png'}: cannot be written (No such file or directory): choose another path or free some space"
    )
    attempts.refused("image files")
    with pytest.raises(UserError) as raised:
        write_image(tmp_path / "wide.webp", np.zeros((2, 16384, 3), np.uint8))
    assert str(raised.value) == f"{tmp_path / 'wide.webp'}: .webp files do not support images of 16384x2 pixels: write a .png file"
    assert not (tmp_path / "wide.webp").exists()
    attempts.refused("image files")
