"""What fails is named in one line and stops no other image; what is written is whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import picture

from irformer.evaluation.restorers import NetworkRestorer
from irformer.imaging.images import read_image, write_image
from restoring.places import tree

REPOSITORY = Path(__file__).parents[2]


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


def process(place: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, str(REPOSITORY / "scripts" / "restore.py"), *words, "--checkpoint", "w.safetensors", "--device", "cpu"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"} if len(words) == 2 else dict(os.environ)
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


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
