"""scripts/export.py for ONNX and .pt2, and scripts/restore.py with a runtime: options, the file beside the checkpoint, the same images."""

import io
import shutil
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import picture
from omegaconf import OmegaConf
from torch import nn

from irformer.commands.export import export
from irformer.commands.restore import restore
from irformer.config.compose import build_network, compose
from irformer.core.files import sha256
from irformer.graphs import checkpoint_graphs
from irformer.graphs.agreement import Size
from irformer.graphs.graph_files import write_onnx, write_program
from irformer.graphs.runtimes import metadata
from irformer.imaging.images import read_image, write_image
from irformer.weights.checkpoints import save_network

QUICK = (Size(1, 11, 9),)


def save(path: Path, seed: int = 0) -> None:
    """An untrained network of scale 2."""
    cfg = compose("train", ["model=swinir_tiny", "norm=iln", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", "name=x"])
    torch.manual_seed(seed)
    save_network(path, build_network(cfg.model), OmegaConf.to_container(cfg.model, resolve=True), "sr_x2", 1, {})


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, str]:
    """A folder with a checkpoint and its ONNX file, which takes seconds, and what export.py printed."""
    folder = tmp_path_factory.mktemp("exported")
    save(folder / "w.safetensors")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(checkpoint_graphs, "write_onnx", partial(write_onnx, sizes=QUICK))
        patch.setattr(sys, "argv", ["export.py", str(folder / "w.safetensors"), str(folder / "w.onnx"), "--license", "Apache-2.0"])
        export()
    return folder, printed.getvalue()


@pytest.fixture
def place(exported, tmp_path, monkeypatch):
    """A folder with the checkpoint and an image, in which a file is exported by copying the one at hand with other facts."""

    def copied(network: nn.Module, path: Path, facts: dict[str, str], *_: object) -> None:
        model = onnx.load(exported[0] / "w.onnx")
        found = {entry.key: entry.value for entry in model.metadata_props} | facts
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, found)
        onnx.save(model, path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint_graphs, "write_onnx", copied)
    shutil.copy(exported[0] / "w.safetensors", tmp_path)
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


def test_the_suffix_selects_the_format(exported):
    folder, printed = exported
    assert printed.startswith("fp32, largest difference from the network: ")
    assert printed.endswith(f" at 9x11\nwrote {folder / 'w.onnx'}\n")
    facts = metadata(folder / "w.onnx")
    expected = {"name": "swinir_tiny", "norm": "iln", "task": "sr_x2", "license": "Apache-2.0", "source": "w.safetensors"}
    assert expected.items() <= facts.items()
    assert facts["source_sha256"] == sha256(folder / "w.safetensors")


@pytest.mark.slow
def test_a_program_in_float16(place, monkeypatch, typed):
    monkeypatch.setattr(checkpoint_graphs, "write_program", partial(write_program, sizes=QUICK))
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
    ],
)
def test_options_of_another_format_are_refused(words, message, place, typed):
    assert typed(export, "w.safetensors", *words) == (1, "", f"error: {message}\n")


def test_restoring_with_a_runtime_gives_the_same_images(place, typed):
    words = ("--checkpoint", "w.safetensors", "--backend")
    restored = {}
    for backend in ("torch", "onnxruntime", "openvino"):
        status, out, error = typed(restore, "a.png", f"{backend}.png", *words, backend)
        assert (status, out) == (0, f"1 image restored x2: {backend}.png\n")
        assert ("written once" in error) == (backend == "onnxruntime"), "the first runtime writes the file for all"
        restored[backend] = read_image(place / f"{backend}.png").astype(int)
    for backend in ("onnxruntime", "openvino"):
        assert np.abs(restored[backend] - restored["torch"]).max() <= 1  # values at the edge of rounding

    status, out, _ = typed(restore, "a.png", "tiled.png", *words, "onnxruntime", "--tile", "16", "--overlap", "8")
    assert (status, out) == (0, "1 image restored x2: tiled.png\n")


def test_the_file_beside_a_checkpoint_follows_it(place, typed):
    words = ("--checkpoint", "w.safetensors", "--overwrite", "--backend", "onnxruntime")
    beside = place / "w.safetensors.onnx"
    typed(restore, "a.png", "b.png", *words)
    first = beside.read_bytes()
    assert "written once" not in typed(restore, "a.png", "b.png", *words)[2]
    beside.write_bytes(b"damaged")
    assert "written once" in typed(restore, "a.png", "b.png", *words)[2]
    assert beside.read_bytes() == first
    save(place / "w.safetensors", seed=1)
    assert "written once" in typed(restore, "a.png", "b.png", *words)[2]
    assert metadata(beside)["source_sha256"] == sha256(place / "w.safetensors")


@pytest.mark.parametrize(("option", "value"), [("--precision", "bf16"), ("--memory", "1GB")])
def test_a_runtime_computes_whole_images_in_float32(option, value, place, typed):
    status, _, error = typed(restore, "a.png", "b.png", "--checkpoint", "w.safetensors", "--backend", "openvino", option, value)
    expected = f"error: {option} {value}: --backend openvino restores whole images or tiles on the CPU in fp32; omit one\n"
    assert (status, error) == (1, expected)
