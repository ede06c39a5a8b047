"""Hostile weights files, given to every command that reads weights: one line, and no file is left."""

import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import picture
from hostile import HOSTILE
from torch import nn

from irformer import load_network
from irformer.commands.benchmark import benchmark
from irformer.commands.export import export
from irformer.commands.restore import restore
from irformer.commands.train import train
from irformer.errors import UserError
from irformer.imaging.images import write_image
from irformer.weights.building import bounded

TINY = ["model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", "debug=fast", "trainer=cpu", "logger=csv"]
COMMANDS = {
    "train": (train, lambda file: [*TINY, f"init_from='{file}'"]),
    "benchmark": (benchmark, lambda file: [f"checkpoint='{file}'", "out=out", "device=cpu", "test_sets=[sample]"]),
    "restore": (restore, lambda file: ["photo.png", "restored.png", "--checkpoint", str(file), "--device", "cpu"]),
    "export": (export, lambda file: [str(file), "out.safetensors"]),
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def left(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", HOSTILE)
def test_from_python_it_is_refused_in_one_line(folder, kind, attempts):
    write, expected = HOSTILE[kind]
    file = write(folder)
    before, started = left(folder), time.monotonic()
    with pytest.raises(UserError) as caught:
        load_network(file)
    message = str(caught.value)
    assert expected in message
    assert message.startswith(str(file)[:200])
    assert message.isprintable()
    assert len(message) < 900
    assert "weights_only=" not in message
    assert time.monotonic() - started < 20
    assert left(folder) == before
    attempts.refused("weights files")


# One of each way to read a file; the others differ only before the command has a part in it.
TYPICAL = ("interpolation", "foreign module", "record in a checkpoint", "pickled code", "not finite", "FIFO")
# What the file says of pixels does not matter where only its weights are taken.
HARMLESS = {("zero range", "train")}
# Weights of another network than the one to be trained.
MISFITS = ("name of many lines", "scalar", "flat", "no rows", "far numbers")


def refused_by(command: str, kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    write, expected = HOSTILE[kind]
    file = write(folder)
    write_image(folder / "photo.png", picture(16, 16))
    before = left(folder)
    function, words = COMMANDS[command]
    monkeypatch.setattr(sys, "argv", [f"{command}.py", *words(file)])
    with pytest.raises(SystemExit) as exit_:
        function()
    error = capsys.readouterr().err
    assert exit_.value.code == 1
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert ("only its upsampler may differ" if command == "train" and kind in MISFITS else expected) in error
    assert left(folder) - before <= {Path("runs")}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", TYPICAL)
def test_a_command_refuses_it_and_leaves_nothing(folder, monkeypatch, capsys, kind, command, attempts):
    refused_by(command, kind, folder, monkeypatch, capsys)
    attempts.refused("weights files")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind not in TYPICAL])
def test_every_command_refuses_it(folder, monkeypatch, capsys, kind, command, attempts):
    if (kind, command) in HARMLESS:
        pytest.skip("its weights are whole")
    refused_by(command, kind, folder, monkeypatch, capsys)
    attempts.refused("weights files")


@pytest.mark.parametrize(
    "build",
    [
        lambda: torch.zeros(2**28),
        lambda: torch.arange(2.0**15)[:, None] - torch.arange(2.0**15),
        lambda: torch.zeros(1).expand(2**28).clone(),
        lambda: [torch.empty(2**25) for _ in range(20)],
        lambda: [nn.Linear(1, 1) for _ in range(10_000)],
    ],
)
def test_what_other_code_builds_from_a_file_is_bounded(build):
    """spandrel builds networks by names and shapes: neither their number nor their size may go far beyond the file."""
    with pytest.raises(UserError, match=r"describes? a network of more than"), bounded(10, 1000):
        build()
