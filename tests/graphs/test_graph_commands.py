"""scripts/export.py for ONNX and .pt2, and scripts/restore.py with a runtime: options, the file beside the checkpoint, the same images."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from omegaconf import OmegaConf

from irformer.commands.export import export
from irformer.commands.restore import restore
from irformer.config.compose import build_network, compose
from irformer.core.files import sha256
from irformer.graphs import checkpoint_graphs
from irformer.graphs.agreement import Size
from irformer.graphs.files import write_onnx, write_program
from irformer.graphs.runtimes import metadata
from irformer.imaging.images import read_image, write_image
from irformer.weights.checkpoints import save_network

QUICK = (Size(1, 11, 9),)


def save(path: Path, seed: int = 0) -> None:
    """An untrained network of scale 2."""
    cfg = compose("train", ["model=swinir_tiny", "norm=iln", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", "name=x"])
    torch.manual_seed(seed)
    save_network(path, build_network(cfg.model), OmegaConf.to_container(cfg.model, resolve=True), "sr_x2", 1, {})


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with a checkpoint and an image; exported files are compared at one size."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint_graphs, "write_onnx", partial(write_onnx, sizes=QUICK))
    monkeypatch.setattr(checkpoint_graphs, "write_program", partial(write_program, sizes=QUICK))
    save(tmp_path / "w.safetensors")
    write_image(tmp_path / "a.png", picture(12, 17))
    return tmp_path


@pytest.fixture
def typed(monkeypatch, capsys):
    """Type words after a command, within this process; gives the exit status, stdout and stderr."""

    def type_words(command, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{command.__name__}.py", *words])
        capsys.readouterr()
        status = 0
        try:
            command()
        except SystemExit as exit_:
            status = exit_.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return type_words


def test_the_suffix_selects_the_format(place, typed):
    status, out, _ = typed(export, "w.safetensors", "w.onnx", "--license", "Apache-2.0")
    assert status == 0
    assert out.startswith("fp32, largest difference from the network: ")
    assert out.endswith(" at 9x11\nwrote w.onnx\n")
    facts = metadata(place / "w.onnx")
    expected = {"name": "swinir_tiny", "norm": "iln", "task": "sr_x2", "license": "Apache-2.0", "source": "w.safetensors"}
    assert expected.items() <= facts.items()
    assert facts["source_sha256"] == sha256(place / "w.safetensors")
    status, out, _ = typed(export, "w.safetensors", "w.pt2", "--fp16")
    assert status == 0
    assert out.startswith("fp16, PSNR against the network: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["w.pth", "--format", "official", "--fp16"], "--fp16: --format official does not use it, only onnx, pt2; omit it"),
        (["w.pt2", "--opset", "19"], "--opset: --format pt2 does not use it, only onnx; omit it"),
        (["x.safetensors", "--license", "MIT"], "--license: --format safetensors does not use it, only hub, onnx, pt2; omit it"),
        (["w.onnx", "--results", "r.json"], "--results: --format onnx does not use it, only hub; omit it"),
        (["w.net", "--format", "onnx"], "w.safetensors: w.net: expected a file name ending in .onnx"),
    ],
)
def test_options_of_another_format_are_refused(words, message, typed):
    assert typed(export, "w.safetensors", *words) == (1, "", f"error: {message}\n")


def test_restoring_with_a_runtime_gives_the_same_images(place, typed):
    words = ("a.png", "{}.png", "--checkpoint", "w.safetensors", "--overwrite")
    restored = {}
    for backend in ("torch", "onnxruntime", "openvino"):
        status, out, error = typed(restore, "a.png", f"{backend}.png", *words[2:], "--backend", backend)
        assert (status, out) == (0, f"1 image restored x2: {backend}.png\n")
        assert ("written once" in error) == (backend == "onnxruntime"), "the first runtime writes the file for all"
        restored[backend] = read_image(place / f"{backend}.png").astype(int)
    for backend in ("onnxruntime", "openvino"):
        assert np.abs(restored[backend] - restored["torch"]).max() <= 1  # values at the edge of rounding

    beside = place / "w.safetensors.onnx"
    first = beside.read_bytes()
    tiled = typed(restore, "a.png", "tiled.png", *words[2:], "--backend", "onnxruntime", "--tile", "16", "--overlap", "8")
    assert (tiled[0], beside.read_bytes()) == (0, first)
    save(place / "w.safetensors", seed=1)
    assert "written once" in typed(restore, "a.png", "new.png", *words[2:], "--backend", "onnxruntime")[2]
    assert metadata(beside)["source_sha256"] == sha256(place / "w.safetensors")
    beside.write_bytes(b"damaged")
    assert typed(restore, "a.png", "again.png", *words[2:], "--backend", "onnxruntime")[0] == 0
    assert np.array_equal(read_image(place / "again.png"), read_image(place / "new.png"))


@pytest.mark.parametrize(("option", "value"), [("--precision", "bf16"), ("--memory", "1GB")])
def test_a_runtime_computes_whole_images_in_float32(option, value, typed):
    status, _, error = typed(restore, "a.png", "b.png", "--checkpoint", "w.safetensors", "--backend", "openvino", option, value)
    expected = f"error: {option} {value}: --backend openvino restores whole images or tiles on the CPU in fp32; omit one\n"
    assert (status, error) == (1, expected)
