"""scripts/restore.py: inputs stay, outputs are whole or absent, one bad image stops no other, and every kind of image keeps its kind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from omegaconf import OmegaConf
from PIL import ExifTags, Image, ImageCms

from irformer.commands.restore import restore
from irformer.commands.restore_jobs import plan
from irformer.commands.restore_pipeline import Pipeline
from irformer.config.compose import build_network, compose
from irformer.errors import UserError
from irformer.evaluation.ensemble import SelfEnsemble
from irformer.evaluation.restorers import NetworkRestorer
from irformer.evaluation.tiling import TiledRestorer
from irformer.imaging.images import OutOfMemoryError, decode_image, read_image, write_image
from irformer.precision import in_precision, scale_stream
from irformer.weights.checkpoints import load_checkpoint, save_network

REPOSITORY = Path(__file__).parent.parent


def save(path: Path, channels: int = 3) -> Path:
    """An untrained network of scale 2 in a file of weights."""
    words = ["model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", f"task.channels={channels}", "name=x"]
    cfg = compose("train", words)
    torch.manual_seed(0)
    network = build_network(cfg.model)
    model = OmegaConf.to_container(cfg.model, resolve=True)
    save_network(path, network, model, "sr_x2", 1, {})
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with weights and a tree of photos."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "w.safetensors")
    for i, name in enumerate(("a.png", "sub/b.png", "sub/deep/c.jpg")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "photos" / name, picture(12, 16, seed=i))
    return tmp_path


@pytest.fixture
def typed(place, monkeypatch, capsys):
    """Type words after scripts/restore.py, within this process; gives the exit status, the last line of stdout, and stderr."""

    def type_words(*words: str, checkpoint: str = "w.safetensors") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["restore.py", *words, "--checkpoint", checkpoint, "--device", "cpu"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            restore()
        captured = capsys.readouterr()
        return exit_.value.code, (captured.out.splitlines() or [""])[-1], captured.err

    return type_words


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_keeps_its_tree_and_a_second_run_skips(typed, place, attempts):
    (place / "photos" / "notes.txt").touch()
    (place / "photos" / ".hidden.png").touch()
    assert typed("photos", "out") == (0, "3 images restored x2: out; 1 file that is not an image", "")
    assert tree(place / "out") == ["a.png", "sub/b.png", "sub/deep/c.png"]
    assert read_image(place / "out" / "sub" / "deep" / "c.png").shape == (24, 32, 3)
    (place / "out" / "a.png").write_bytes(b"mine")
    (place / "out" / "sub" / "b.png").unlink()
    status, line, _ = typed("photos", "out")
    assert (status, line) == (
        0,
        "1 image restored x2: out; 2 already present, --overwrite replaces them; 1 file that is not an image",
    )
    assert (place / "out" / "a.png").read_bytes() == b"mine"
    assert typed("photos", "out", "--overwrite")[1].startswith("3 images restored")
    assert read_image(place / "out" / "a.png").shape == (24, 32, 3)
    for _ in range(3):
        attempts.handled("restore")


def test_several_inputs(typed, place, attempts):
    (place / "more").mkdir()
    write_image(place / "more" / "a.png", picture(12, 12))
    assert typed("photos/a.png", "photos", "more", "out")[0] == 0
    # The first a.png and the one of the folder are one file: it is restored once.
    assert tree(place / "out") == ["a.png", "more/a.png", "photos/sub/b.png", "photos/sub/deep/c.png"]
    attempts.handled("restore")


def test_inputs_of_one_stem_are_kept_apart(typed, place, attempts):
    write_image(place / "photos" / "a.jpg", picture(12, 12))
    assert typed("photos", "out")[0] == 0
    assert tree(place / "out") == ["a.jpg.png", "a.png.png", "sub/b.png", "sub/deep/c.png"]
    attempts.handled("restore")


def test_a_link_to_a_folder_is_followed_but_not_in_circles(typed, place, attempts):
    (place / "photos" / "circle").symlink_to(place / "photos")
    (place / "elsewhere").mkdir()
    write_image(place / "elsewhere" / "d.png", picture(12, 12))
    (place / "photos" / "link").symlink_to(place / "elsewhere")
    assert typed("photos", "out")[0] == 0
    assert tree(place / "out") == ["a.png", "link/d.png", "sub/b.png", "sub/deep/c.png"]
    attempts.handled("restore")


def link(kind):
    def make(place):
        if kind == "hard":
            os.link(place / "photos" / "a.png", place / "other.png")
        else:
            (place / "other.png").symlink_to(place / "photos" / "a.png")

    return make


def folder(*names):
    def make(place):
        for name in names:
            (place / name).mkdir(parents=True)

    return make


def copies(place):
    for name in ("x", "y"):
        (place / name).mkdir()
        write_image(place / name / "a.png", picture(12, 12))


LOST = "which would be overwritten; choose another OUTPUT"
REFUSED = {
    "itself": (None, ["photos/a.png", "photos/a.png"], f"photos/a.png: is itself an input, {LOST}"),
    "another way of writing it": (
        None,
        ["photos/a.png", "photos/../photos/a.png"],
        f"photos/../photos/a.png: is the same file as the input photos/a.png, {LOST}",
    ),
    "its own folder": (None, ["photos/a.png", "photos"], f"photos/a.png: is itself an input, {LOST}"),
    "a hard link": (link("hard"), ["photos/a.png", "other.png"], f"other.png: is the same file as the input photos/a.png, {LOST}"),
    "a link": (link("soft"), ["photos/a.png", "other.png"], f"other.png: is the same file as the input photos/a.png, {LOST}"),
    "a link as input": (link("soft"), ["other.png", "photos/a.png"], f"photos/a.png: is the same file as the input other.png, {LOST}"),
    "with --overwrite": (None, ["photos/a.png", "photos/a.png", "--overwrite"], f"photos/a.png: is itself an input, {LOST}"),
    "a folder onto itself": (
        None,
        ["photos", "photos"],
        "photos: is inside the input folder photos, and would be read as input next time",
    ),
    "inside": (None, ["photos", "photos/out"], "photos/out: is inside the input folder photos, and would be read as input next time"),
    "inside by a link": (
        lambda place: (place / "way").symlink_to(place / "photos" / "sub"),
        ["photos", "way/out"],
        "way/out: is inside the input folder photos, and would be read",
    ),
    "onto inputs from below": (
        folder("photos/sub/sub"),
        ["photos/sub", "photos/sub/b.png", "photos"],
        f"photos/sub/b.png: is itself an input, {LOST}",
    ),
    "two of one name": (copies, ["x/a.png", "y/a.png", "out"], "x/a.png and y/a.png would both become out/a.png.png: restore them to"),
    "no such file": (None, ["nope.png", "out"], "nope.png: no such file or folder; expected an image or a folder of images"),
    "unknown input": (lambda place: (place / "n.txt").touch(), ["n.txt", "out"], "n.txt: unknown image format; known: .png, .jpg, "),
    "unknown output": (None, ["photos/a.png", "out.xyz"], "out.xyz: unknown image format; known: .png, .jpg, "),
    "empty folder": (folder("empty"), ["empty", "out"], "empty: no images (.png, .jpg, .jpeg, .bmp, .tif, .tiff, .webp) in this folder"),
    "folder to file": (lambda place: (place / "f").touch(), ["photos", "f"], "f: is a file, expected a folder, since photos is a folder"),
    "two to file": (
        lambda place: (place / "f.png").touch(),
        ["photos/a.png", "photos/sub/b.png", "f.png"],
        "f.png: is a file, expected a folder, since there are 2 inputs",
    ),
    "two to a new image": (
        None,
        ["photos/a.png", "photos", "f.png"],
        "f.png: has an image suffix, expected a folder, since there are 2",
    ),
    "below a file": (
        lambda place: (place / "f").touch(),
        ["photos", "f/out"],
        "f/out: cannot be written to (Not a directory); choose another",
    ),
    "read-only": (None, ["photos", "/proc/out"], "/proc/out: cannot be written to (No such file or directory); choose another OUTPUT"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_lose_something_is_refused_before_it_starts(typed, place, attempts, case):
    make, words, line = REFUSED[case]
    if make:
        make(place)
    before = {name: (place / name).read_bytes() for name in tree(place)}
    status, said, error = typed(*words)
    assert (status, said) == (1, "")
    assert error.startswith(f"error: {line}"), error
    assert error.count("\n") == 1
    assert {name: (place / name).read_bytes() for name in tree(place)} == before
    attempts.refused("restore")


def test_outputs_may_lie_around_inputs_where_nothing_collides(place, attempts):
    jobs = plan([Path("photos/sub")], Path("photos")).jobs
    assert [str(job.target) for job in jobs] == ["photos/b.png", "photos/deep/c.png"]
    attempts.handled("restore")
    with pytest.raises(UserError, match="is itself an input"):
        plan([Path("photos/a.png")], Path("photos"))
    attempts.refused("restore")


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"", "a.png: "), (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "a.png: "), (None, "a.png: ")],
    ids=["empty", "damaged", "cut"],
)
def test_a_bad_image_is_named_and_the_others_are_restored(typed, place, attempts, content, line):
    bad = place / "photos" / "a.png"
    bad.write_bytes(bad.read_bytes()[:-20] if content is None else content)
    status, said, error = typed("photos", "out")
    assert (status, said) == (3, "2 images restored x2: out; 1 failed")
    assert error.startswith(f"failed: photos/{line}")
    assert error.count("\n") == 1
    assert tree(place / "out") == ["sub/b.png", "sub/deep/c.png"]
    attempts.refused("restore")


def test_output_that_is_not_finite_is_not_written(typed, place, monkeypatch, attempts):
    """The network's output overflows on the second image alone."""
    forward = NetworkRestorer.__call__
    seen = []

    def second_is_nan(self, lq):
        seen.append(lq)
        if len(seen) == 2:
            self.network.upsample[0].bias.data[:] = torch.nan
        try:
            return forward(self, lq)
        finally:
            if len(seen) == 2:
                self.network.upsample[0].bias.data[:] = 0

    monkeypatch.setattr(NetworkRestorer, "__call__", second_is_nan)
    status, said, error = typed("photos", "out")
    assert (status, said) == (3, "2 images restored x2: out; 1 failed")
    assert error.startswith("failed: photos/sub/b.png: ")
    assert "of the restored image are NaN or infinite" in error
    assert tree(place / "out") == ["a.png", "sub/deep/c.png"]
    attempts.refused("restore")


def test_too_little_memory_is_one_image_s_failure(typed, place, monkeypatch, attempts):
    def fail(self, lq):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90 GiB\nmore")

    monkeypatch.setattr(NetworkRestorer, "__call__", fail)
    status, _, error = typed("photos", "out")
    assert status == 3
    assert error.splitlines()[0] == (
        "failed: photos/a.png: the network fails on 16x12 pixels (CUDA out of memory. Tried to allocate 90 GiB): "
        "too small for it, or too large for memory"
    )
    attempts.refused("restore")


def test_a_full_disk_stops_with_one_line_and_leaves_no_half_file(typed, place, monkeypatch, attempts):
    write = Path.write_bytes

    def full(self, data):
        if self.name == "b.png":
            write(self, data[:10])
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    status, said, error = typed("photos", "out")
    assert (status, said) == (3, "1 image restored x2: out; 1 failed; 1 left")
    assert (
        error == "failed: out/sub/b.png: cannot be written (No space left on device): free some space or choose another OUTPUT; stopped\n"
    )
    assert tree(place / "out") == ["a.png"]
    attempts.refused("restore")


def kinds():
    rng = np.random.default_rng(0)
    rgb, gray = picture(12, 16), picture(12, 16, 1)
    deep = (rgb.astype(np.uint16) * 257 + rng.integers(0, 200, rgb.shape, np.uint16)).clip(0, 65535).astype(np.uint16)
    alpha = rng.integers(0, 256, (12, 16), np.uint8)
    return {
        "rgb": (rgb, None),
        "gray": (gray, None),
        "rgb 16": (deep, None),
        "gray 16": (deep[..., :1], None),
        "rgba": (rgb, alpha),
        "opaque": (rgb, np.full((12, 16), 255, np.uint8)),
        "half transparent": (rgb, np.full((12, 16), 128, np.uint8)),
        "rgba 16": (deep, deep[..., 0]),
    }


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_image_keeps_its_kind(typed, place, attempts, kind, channels):
    """Against the network itself, applied here in float32."""
    network = load_checkpoint(save(place / "w.safetensors", channels)).network
    pixels, alpha = kinds()[kind]
    write_image(place / "in.png", pixels, alpha)
    decoded = decode_image(place / "in.png")
    assert (decoded.pixels.dtype, decoded.pixels.shape) == (pixels.dtype, pixels.shape)
    status, line, error = typed("in.png", "out.png")
    assert (status, error) == (0, "")
    found = decode_image(place / "out.png")
    most = np.iinfo(pixels.dtype).max
    turned_gray = channels == 1 and pixels.shape[2] == 3
    assert ("1 color image became gray" in line) == turned_gray

    def expected(plane):
        x = torch.from_numpy(np.repeat(plane, channels if plane.shape[2] == 1 else 1, 2).astype(np.float32) / most)
        with torch.no_grad():
            out = network(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0).clamp(0, 1).numpy() * most
        return out.mean(2, keepdims=True) if plane.shape[2] == 1 else out

    assert found.pixels.dtype == pixels.dtype
    if not turned_gray:
        truth = expected(pixels)
        assert found.pixels.shape == truth.shape
        assert np.abs(found.pixels.astype(float) - truth).max() <= 1.01
    else:
        shape = (24, 32, 1) if alpha is None else (24, 32, 3)  # gray with alpha is written as three equal channels
        assert found.pixels.shape == shape
        assert (found.pixels == found.pixels[..., :1]).all()
    if alpha is None or (alpha == most).all():
        assert found.alpha is None or (found.alpha == most).all()
    elif (alpha == alpha[0, 0]).all():
        assert (found.alpha == alpha[0, 0]).all()
    else:
        assert np.abs(found.alpha.astype(float) - expected(alpha[..., None])[..., 0]).max() <= 1.01
    attempts.handled("restore")


def test_a_format_that_cannot_hold_the_image(typed, place, attempts):
    write_image(place / "in.png", *kinds()["rgba"])
    status, _, error = typed("in.png", "out.jpg")
    assert status == 3
    assert error == "failed: in.png: out.jpg: .jpg files do not support 8-bit images with alpha: write a .png file\n"
    assert not (place / "out.jpg").exists()
    attempts.refused("restore")


def test_a_name_that_is_no_utf_8(place, attempts):
    """As a process, whose terminal takes UTF-8 alone."""
    name = os.fsdecode(b"caf\xe9.png")
    (place / "odd").mkdir()
    (place / "photos" / "a.png").rename(place / "odd" / name)
    (place / "odd" / os.fsdecode(b"bad\xe9.png")).touch()
    done = process(place, "odd", os.fsdecode(b"out\xe9"))
    status = done.wait(120)
    out, error = done.communicate()
    assert (status, out) == (3, b"1 image restored x2: out\\xe9; 1 failed\n"), error
    assert error.startswith(b"failed: odd/bad\\xe9.png: ")
    assert [path.name for path in (place / os.fsdecode(b"out\xe9")).iterdir()] == [name]
    attempts.handled("restore")
    attempts.refused("restore")


def process(place: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, str(REPOSITORY / "scripts" / "restore.py"), *words, "--checkpoint", "w.safetensors", "--device", "cpu"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"} if len(words) == 2 else dict(os.environ)
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def test_ctrl_c_ends_after_the_image_at_hand(place, attempts):
    """A real process: what is there is whole, the line says what is left, and the same command does it."""
    for i in range(60):
        write_image(place / "photos" / f"{i:02}.png", picture(160, 160, seed=i))
    running = process(place, "photos", "out")
    deadline = time.monotonic() + 120
    while not list((place / "out").glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, error = running.communicate(timeout=120)
    assert running.returncode == 130, error
    assert error == b""
    done = len(tree(place / "out"))
    assert 0 < done < 63
    assert out.decode() == f"interrupted: {done} images restored x2: out; {63 - done} left; rerun the command to restore the rest\n"
    for name in tree(place / "out"):
        read_image(place / "out" / name)
    attempts.handled("restore")


@pytest.mark.parametrize("checkpoint", ["nope.safetensors", "photos/a.png"])
def test_a_bad_checkpoint_leaves_nothing(typed, place, attempts, checkpoint):
    status, _, error = typed("photos", "out", checkpoint=checkpoint)
    assert (status, error.count("\n")) == (1, 1)
    assert not (place / "out").exists()
    attempts.refused("restore")


def camera_photo(path: Path, orientation: int = 1, **options) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "A. Photographer"
    Image.fromarray(picture(12, 16)).save(path, exif=exif.tobytes(), icc_profile=SRGB, **options)
    return path


def test_a_folder_of_every_kind_of_file(typed, place, attempts):
    """Everything that can be restored is, with its kind and its metadata; everything else is named, in the order of the names."""
    folder = place / "all"
    folder.mkdir()
    rgb, gray = picture(12, 16), picture(12, 16, 1)
    deep = rgb.astype(np.uint16) * 257
    alpha = picture(12, 16, 1, seed=7)[..., 0]
    for name in ("a.png", "b.jpg", "c.webp", "d.tif", "e.bmp"):
        write_image(folder / name, rgb)
        write_image(folder / f"gray-{name}", gray)
    for name in ("f.png", "g.tif"):
        write_image(folder / name, deep)
        write_image(folder / f"gray-{name}", deep[..., :1])
    for name in ("h.png", "i.webp", "j.tif"):
        write_image(folder / name, rgb, alpha)
    write_image(folder / "k.png", deep, deep[..., 0])
    for i in range(1, 9):
        camera_photo(folder / f"turned{i}.jpg", i)
    (folder / "notes.txt").touch()
    bad = {"cut.jpg": (folder / "b.jpg").read_bytes()[:100], "empty.png": b"", "scratched.tif": (folder / "g.tif").read_bytes()[:-40]}
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg")
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    (folder / "gone.png").symlink_to("nowhere.png")

    status, line, error = typed("all", "out", "--suffix", "_x2")
    assert (status, line) == (3, "26 images restored x2: out; 5 failed; 1 file that is not an image")
    failed = [word.split(":")[1].strip() for word in error.splitlines()]
    assert failed == [f"all/{name}" for name in ("cmyk.jpg", "cut.jpg", "empty.png", "gone.png", "scratched.tif")]
    assert len(tree(place / "out")) == 26
    for name in tree(place / "out"):
        image = decode_image(place / "out" / name)
        turned = name.startswith("turned") and int(name[6]) >= 5
        assert image.pixels.shape == ((32, 24) if turned else (24, 32)) + ((1,) if name.startswith("gray") and "-c_" not in name else (3,))
        assert (image.pixels.dtype == np.uint16) == (name.removeprefix("gray-")[0] in "fgk")
        assert (image.alpha is not None) == (name[0] in "hijk" and name[1] == "_")
        if name.startswith("turned"):
            with Image.open(place / "out" / name) as photo:
                assert photo.getexif().get(ExifTags.Base.Orientation) == 1
                assert photo.getexif()[ExifTags.Base.Artist] == "A. Photographer"
                assert photo.info["icc_profile"] == SRGB
    upright = read_image(place / "out" / "turned1_x2.png")
    assert upright.shape == (24, 32, 3)
    attempts.handled("restore")
    for _ in failed:
        attempts.refused("restore")


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(("kind", "suffix"), [("jpg", ".jpg"), ("webp", ".webp"), ("tif", ".tif"), ("bmp", ".bmp"), ("same", None)])
def test_formats_of_outputs(typed, place, attempts, kind, suffix):
    camera_photo(place / "photos" / "sub" / "photo.jpg", 6)
    status, line, _ = typed("photos", "out", "--format", kind)
    assert (status, "metadata that BMP files cannot hold dropped from 1 image" in line) == (0, kind == "bmp")
    suffixes = {".png", ".jpg"} if suffix is None else {suffix}
    assert {Path(name).suffix for name in tree(place / "out")} == suffixes
    photo = place / "out" / "sub" / f"photo{suffix or '.jpg'}"
    assert read_image(photo).shape == (32, 24, 3)
    with Image.open(photo) as written:
        assert written.info.get("icc_profile") == (None if kind == "bmp" else SRGB)
        assert written.getexif().get(ExifTags.Base.Orientation, 1) == 1
    attempts.handled("restore")


def test_quality_and_names_that_do_not_apply(typed, place, attempts):
    assert typed("photos", "good", "--format", "jpg", "--quality", "98")[0] == 0
    assert typed("photos", "poor", "--format", "jpg", "--quality", "20")[0] == 0
    good, poor = (sum(Image.open(place / name / "a.jpg").quantization[0]) for name in ("good", "poor"))
    assert good < poor
    attempts.handled("restore")
    for words, message in (
        (("photos", "out", "--quality", "80"), "--quality 80: .png files are lossless; write jpg or webp files, or omit --quality"),
        (("photos/a.png", "b.png", "--suffix", "_x2"), "--suffix: OUTPUT names the file b.png, expected a folder; choose a folder or omit"),
        (("photos/a.png", "b.png", "--format", "jpg"), "--format: OUTPUT names the file b.png, expected a folder; choose a folder or omit"),
        (("photos", "out", "--tile", "99"), "--tile 99: expected a multiple of 8, as the network requires; use 96 or 104"),
        (
            ("photos", "out", "--tile", "32"),
            "--tile 32: expected more than the overlap of 32 pixels; use a larger tile or a smaller overlap",
        ),
        (("no*.png", "out"), "no*.png: no file matches this pattern"),
        (("photos/**/*.png", "photos/out"), "photos/out: is inside photos, where photos/**/*.png would find it as input next time;"),
    ):
        status, _, error = typed(*words)
        assert (status, error.count("\n")) == (1, 1)
        assert error.startswith(f"error: {message}")
        assert not (place / "out").exists()
        attempts.refused("restore")


@pytest.mark.parametrize("words", [("--tile", "big"), ("--tile", "0"), ("--quality", "0"), ("--overlap", "-1"), ("--workers", "0"),
                                   ("--memory", "lots"), ("--memory", "0GB"), ("--suffix", "a/b"), ("--format", "gif")])  # fmt: skip
def test_options_that_make_no_sense_are_usage_errors(typed, attempts, words):
    status, _, error = typed("photos", "out", *words)
    assert status == 2
    assert f"argument {words[0]}: " in error
    attempts.refused("restore")


def test_patterns_keep_the_tree_below_their_fixed_part(typed, place, attempts):
    (place / "photos" / "sub" / "notes.txt").touch()
    assert typed("photos/**/*.png", "out")[:2] == (0, "2 images restored x2: out")
    assert tree(place / "out") == ["a.png", "sub/b.png"]
    assert typed("photos/s*", "more")[:2] == (0, "2 images restored x2: more; 1 file that is not an image")
    assert tree(place / "more") == ["sub/b.png", "sub/deep/c.png"]
    attempts.handled("restore")


def test_an_existing_folder_is_no_output(typed, place, attempts):
    (place / "out" / "a.png").mkdir(parents=True)
    status, _, error = typed("photos", "out")
    assert (status, error) == (1, "error: out/a.png: is a folder, expected the output of photos/a.png; move it, or choose another OUTPUT\n")
    attempts.refused("restore")


def test_outputs_that_links_make_one_file(typed, place, attempts):
    (place / "photos" / "twin").mkdir()
    write_image(place / "photos" / "twin" / "b.png", picture(12, 12))
    (place / "out" / "sub").mkdir(parents=True)
    (place / "out" / "twin").symlink_to("sub")
    status, _, error = typed("photos", "out")
    assert status == 1
    assert error.startswith("error: photos/sub/b.png and photos/twin/b.png would both become out/twin/b.png")
    attempts.refused("restore")


def test_tiles_and_the_ensemble_change_the_network_alone(typed, place, attempts):
    """Against the restorers themselves, which other tests compare with SwinIR's rule."""
    image = picture(100, 130)
    write_image(place / "in.png", image)
    network = load_checkpoint(place / "w.safetensors").network
    whole = NetworkRestorer(network, "reflect_min")
    cases = {
        ("--tile", "off"): whole(image),
        ("--tile", "64", "--overlap", "16"): TiledRestorer(whole, 64, 16)(image),
        ("--ensemble",): NetworkRestorer(SelfEnsemble(network), "reflect_min")(image),
        ("--precision", "bf16"): NetworkRestorer(in_precision(network, "bf16").network, "reflect_min")(image),
    }
    for words, expected in cases.items():
        status, line, error = typed("in.png", "out.png", "--overwrite", *words)
        assert (status, line, error) == (0, "1 image restored x2: out.png", "")
        assert np.array_equal(read_image(place / "out.png"), expected), words
        attempts.handled("restore")


def test_a_memory_bound_changes_no_image(typed, place, attempts):
    image = picture(40, 56)
    write_image(place / "in.png", image)
    network = load_checkpoint(place / "w.safetensors").network
    expected = NetworkRestorer(network, "reflect_min")(image).astype(int)
    for words, most in (
        (("--memory", "300MB"), 1),
        (("--memory", "auto", "--tile", "off"), 1),
        (("--memory", "1GB", "--precision", "bf16"), 8),
    ):
        status, line, error = typed("in.png", "out.png", "--overwrite", *words)
        assert (status, line, error) == (0, "1 image restored x2: out.png", "")
        assert np.abs(read_image(place / "out.png") - expected).max() <= most, words
        attempts.handled("restore")


def test_a_memory_bound_that_cannot_be_kept_is_refused(typed, place, attempts):
    for words, message in (
        (("--memory", "1GB", "--tile", "64"), "error: --tile 64: --memory restores whole images in bands, without tiles"),
        (("--memory", "1GB", "--precision", "fp16_safe"), "error: --precision fp16_safe: --memory computes in one precision only"),
    ):
        status, _, error = typed("photos", "out", *words)
        assert (status, error.count("\n")) == (1, 1)
        assert error.startswith(message)
        attempts.refused("restore")
    status, _, error = typed("photos", "out", "--memory", "1MB")
    assert status == 3
    assert "memory=1 MB: too little for 16x12 pixels, which need at least " in error
    attempts.refused("restore")


def test_a_precision_that_overflows_stops_before_anything_is_written(typed, place, monkeypatch, attempts):
    loaded = load_checkpoint(place / "w.safetensors")
    scaled = replace(loaded, network=scale_stream(loaded.network, 2.0**24))
    monkeypatch.setattr("irformer.commands.restore.load_checkpoint", lambda *_, **__: scaled)
    status, _, error = typed("photos", "out", "--precision", "fp16")
    assert (status, error.count("\n"), tree(place / "out")) == (1, 1, [])
    assert error.startswith("error: photos/a.png: precision fp16: activations overflow in ")
    assert error.endswith("use precision fp16_safe, bf16 or fp32\n")
    attempts.refused("restore")
    status, line, error = typed("photos", "out", "--precision", "fp16_safe")
    assert (status, line, error) == (0, "3 images restored x2: out", "")
    expected = NetworkRestorer(loaded.network, "reflect_min")(read_image(place / "photos" / "a.png")).astype(int)
    assert np.abs(read_image(place / "out" / "a.png") - expected).max() <= 1
    attempts.handled("restore")


def test_an_image_that_does_not_fit_is_restored_in_tiles_and_the_last_line_says_so(typed, place, monkeypatch, attempts):
    write_image(place / "photos" / "large.png", picture(100, 130))
    forward = NetworkRestorer.__call__

    def small_memory(self, lq):
        if lq.shape[0] * lq.shape[1] > 5000:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90 GiB")
        return forward(self, lq)

    monkeypatch.setattr(NetworkRestorer, "__call__", small_memory)
    assert typed("photos", "out") == (
        0,
        "4 images restored x2: out; 1 image restored in tiles of 72 pixels, because memory did not suffice for the whole image",
        "",
    )
    attempts.handled("restore")
    status, _, error = typed("photos", "out", "--tile", "off", "--overwrite")
    assert status == 3
    assert error == (
        "failed: photos/large.png: the network fails on 130x100 pixels (CUDA out of memory. Tried to allocate 90 GiB): "
        "too large for memory; restore it in tiles with --tile auto\n"
    )
    attempts.refused("restore")


def test_metadata_that_are_dropped_are_counted(typed, place, attempts):
    Image.fromarray(picture(12, 16)).save(place / "photos" / "odd.png", icc_profile=b"no profile")
    assert typed("photos", "out")[1] == "4 images restored x2: out; a damaged ICC profile dropped from 1 image"
    save(place / "gray.safetensors", channels=1)
    camera_photo(place / "photo.png")
    line = typed("photo.png", "gray.png", checkpoint="gray.safetensors")[1]
    assert line.endswith("because the network is for gray images; an ICC profile for other colors dropped from 1 image")
    attempts.handled("restore")


def test_a_log_gets_a_line_now_and_then(typed, place, monkeypatch, attempts):
    monkeypatch.setattr("irformer.commands.restore._LOG_INTERVAL", 0)
    status, _, error = typed("photos", "out")
    assert status == 0
    assert [line.split(" images,")[0] for line in error.splitlines()] == ["1 of 3", "2 of 3"]
    assert all("images/s, " in line and line.endswith(" left") for line in error.splitlines())
    attempts.handled("restore")


@pytest.mark.parametrize("workers", [1, 4])
def test_errors_and_outputs_come_in_the_order_of_the_inputs(workers):
    """Whichever thread is first: reading and encoding are slow for some items, and fail for others."""
    written = []

    def slow(item, value=None):
        time.sleep(0.02 * (item % 3 == 0))
        if item % 5 == 4:
            raise UserError(f"{item}")
        return item

    pipeline = Pipeline(slow, lambda item, read: read, slow, lambda item, encoded: written.append(item) or item, workers)
    outcomes = list(pipeline.run(range(23), lambda: False))
    assert [item for item, _ in outcomes] == list(range(23))
    assert [item for item, outcome in outcomes if isinstance(outcome, UserError)] == [4, 9, 14, 19]
    assert written == [item for item in range(23) if item % 5 != 4]


def test_the_pipeline_holds_few_items():
    """Reading stays at most two items ahead of the network, and writing as many behind it."""
    held, most = set(), []

    def read(item):
        held.add(item)
        most.append(len(held))
        return item

    pipeline = Pipeline(read, lambda item, _: item, lambda item, _: time.sleep(0.01), lambda item, _: held.discard(item), 2)
    assert len(list(pipeline.run(range(40), lambda: False))) == 40
    assert max(most) <= 2 + 1 + 3


def test_a_step_without_memory_is_repeated_when_nothing_else_computes():
    failed = set()

    def once(step):
        def run(item, *_):
            if (step, item) not in failed and item == 2:
                failed.add((step, item))
                raise OutOfMemoryError("too large")
            return item

        return run

    pipeline = Pipeline(once("read"), lambda item, _: item, once("encode"), lambda item, _: item, 2)
    assert [outcome for _, outcome in pipeline.run(range(5), lambda: False)] == list(range(5))
    assert failed == {("read", 2), ("encode", 2)}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")
def test_lack_of_memory_on_the_cpu_is_an_error_and_not_the_end():
    """In a process of its own: within the limit, an allocation fails that Linux would promise and then kill the process for."""
    code = (
        "import torch\nfrom irformer.core.memory import free_memory, memory_limit\n"
        "from irformer.evaluation.tiling import is_out_of_memory\n"
        "free = free_memory()\nassert 0 < free < 2**50\n"
        "with memory_limit():\n"
        "    torch.zeros(1000, 1000)\n"
        "    try:\n        torch.empty(int(0.97 * free), dtype=torch.uint8)\n"
        "    except RuntimeError as error:\n        assert is_out_of_memory(error), error\n        print('an error')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.stdout == "an error\n", done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_twelve_megapixels_in_tiles_take_little_memory(place, attempts):
    """Less than 1.2 GB for a photo whose first features alone would fill 400 MB each, besides what an image of 12x16 pixels takes."""
    write_image(place / "photos" / "large.jpg", np.tile(picture(300, 400), (10, 10, 1)))
    code = (
        "import sys, atexit\nfrom irformer.commands.restore import restore\n"
        "atexit.register(lambda: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]))\nrestore()\n"
    )
    peaks = {}
    for name, words in {"large": ("photos/large.jpg", "out.png", "--tile", "256"), "small": ("photos/a.png", "small.png")}.items():
        command = [sys.executable, "-c", code, *words, "--checkpoint", "w.safetensors", "--device", "cpu"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks[name] = int(done.stdout.split()[-1]) / 1000
    assert decode_image(place / "out.png").pixels.shape == (6000, 8000, 3)
    assert peaks["large"] - peaks["small"] < 1200, peaks
    attempts.handled("restore")


def test_help_states_the_rules(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["restore.py", "--help"])
    with pytest.raises(SystemExit):
        restore()
    said = " ".join(capsys.readouterr().out.split())
    for words in ("a.png and a.jpg become a.png.png and a.jpg.png", "the same network restores alpha", "3 some failed"):
        assert words in said
