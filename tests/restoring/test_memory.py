"""Too little memory and too low a precision: a bound is kept, tiles help, and the rest is an error."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture

from irformer.evaluation.restorers import NetworkRestorer
from irformer.imaging.images import decode_image, read_image, write_image
from irformer.precision import scale_stream
from irformer.weights.checkpoints import load_checkpoint
from restoring.places import tree

REPOSITORY = Path(__file__).parents[2]


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
