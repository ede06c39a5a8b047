"""Options do what they say, and nonsense is refused before anything is restored."""

import sys

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from irformer.commands.restore import restore
from irformer.evaluation.ensemble import SelfEnsemble
from irformer.evaluation.restorers import NetworkRestorer
from irformer.evaluation.tiling import TiledRestorer
from irformer.imaging.images import read_image, write_image
from irformer.precision import in_precision
from irformer.weights.checkpoints import load_checkpoint


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


def test_a_log_gets_a_line_now_and_then(typed, place, monkeypatch, attempts):
    monkeypatch.setattr("irformer.commands.restore._LOG_INTERVAL", 0)
    status, _, error = typed("photos", "out")
    assert status == 0
    assert [line.split(" images,")[0] for line in error.splitlines()] == ["1 of 3", "2 of 3"]
    assert all("images/s, " in line and line.endswith(" left") for line in error.splitlines())
    attempts.handled("restore")


def test_help_states_the_rules(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["restore.py", "--help"])
    with pytest.raises(SystemExit):
        restore()
    said = " ".join(capsys.readouterr().out.split())
    for words in ("a.png and a.jpg become a.png.png and a.jpg.png", "the same network restores alpha", "3 some failed"):
        assert words in said
