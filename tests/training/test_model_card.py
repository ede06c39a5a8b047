"""Folders for model hubs: weights, model card and license; and the weights in the package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import TINY, build

from irformer import load_network
from irformer.commands.export import export
from irformer.config.compose import build_network, model_config
from irformer.errors import UserError
from irformer.weights import bundled
from irformer.weights.checkpoints import save_network

REPOSITORY = Path(__file__).parents[2]


def test_a_run_becomes_a_folder_with_card_and_license(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path)  # makes the photos
    words = [*TINY, "norm=iln", "trainer.max_steps=2", "data.val=corners", "test_sets=[corners]", f"paths.runs={tmp_path}"]
    subprocess.run([sys.executable, REPOSITORY / "train.py", *words], check=True, capture_output=True, cwd=tmp_path)
    run, out = tmp_path / "tiny", tmp_path / "hub"
    words = ["--format", "hub", "--license", "Apache-2.0", "--license-file", str(REPOSITORY / "LICENSE")]
    monkeypatch.setattr(sys, "argv", ["export.py", str(run), str(out), *words])
    export()
    assert sorted(file.name for file in out.iterdir()) == ["LICENSE", "README.md", "model.safetensors"]
    assert (out / "LICENSE").read_text() == (REPOSITORY / "LICENSE").read_text()
    lq = torch.rand(1, 3, 16, 24)
    assert torch.equal(load_network(out / "model.safetensors")(lq), load_network(run)(lq))
    card = (out / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: "irformer"\n')
    assert 'license: "apache-2.0"' in card
    assert "| norm | iln |" in card
    assert "Trained on sample for 2 steps of 2 patches of 16x16 LQ pixels" in card
    assert "\n    python train.py model=swinir_tiny " in card
    [(name, part)] = json.loads((run / "results.json").read_text())["test_sets"].items()
    assert f"| {name} | {len(part['per_image'])} | {part['metrics']['psnr_y']:.2f} / {part['metrics']['ssim_y']:.4f} |" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--license", "MIT"], "--license: --format safetensors does not use it, only hub, onnx, pt2; omit it"),
        (["--format", "hub", "--license-file", "missing.txt"], "--license-file missing.txt: cannot be read"),
        (["--format", "hub", "--results", "missing.json"], "missing.json: cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    model = model_config("swinir_tiny", "iln", 2, 3)
    save_network(tmp_path / "own.safetensors", build_network(model), model, "sr_x2", None, {})
    monkeypatch.setattr(sys, "argv", ["export.py", str(tmp_path / "own.safetensors"), str(tmp_path / "out"), *words])
    with pytest.raises(SystemExit) as stopped:
        export()
    assert stopped.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_config("swinir_tiny", "iln", 2, 3)
    save_network(tmp_path / "own.safetensors", build_network(model), model, "sr_x2", None, {})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my notes")
    monkeypatch.setattr(sys, "argv", ["export.py", str(tmp_path / "own.safetensors"), str(tmp_path / "mine"), "--format", "hub"])
    with pytest.raises(SystemExit):
        export()
    assert "contains README.md; --format hub overwrites nothing" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["README.md"]
    assert (tmp_path / "mine" / "README.md").read_text() == "my notes"


def test_weights_in_the_package_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "_FOLDER", tmp_path)
    model = model_config("swinir_tiny", "iln", 2, 3)
    network = build_network(model).eval()
    save_network(tmp_path / "swinir_tiny_iln_x2" / "model.safetensors", network, model, "sr_x2", None, {})
    assert bundled.bundled_names() == ["swinir_tiny_iln_x2"]
    lq = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        assert torch.equal(load_network("swinir_tiny_iln_x2")(lq), network(lq))
    with pytest.raises(UserError, match="swinir_tiny_iln_x3: no such file"):
        load_network("swinir_tiny_iln_x3")
