"""Weights files: official networks in every wrapping, golden files, and files that are refused."""

import json
import logging
import os
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import picture
from official import OFFICIAL, assert_same_output, official, small
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from spandrel.architectures.Compact import Compact
from torch import Tensor, nn

from irformer.config.compose import build_network, compose, model_config, with_named_norms
from irformer.errors import UserError
from irformer.evaluation.restorers import NetworkRestorer
from irformer.weights.checkpoints import load_checkpoint, save_network
from irformer.weights.exports import export_checkpoint, export_official
from irformer.weights.formats import recognize

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_weights_rebuild_their_network(tmp_path, name):
    reference = official(name)
    file = tmp_path / "official.pth"
    torch.save({"params_ema": reference.state_dict()}, file)
    loaded = load_checkpoint(file)
    assert not loaded.network.training
    assert loaded.model["norm"]["name"] == "ln"
    assert_same_output(loaded.network, reference, loaded.network.in_channels)


WRAPPINGS = {
    "bare": lambda state: state,
    "params": lambda state: {"params": state},
    "params_ema": lambda state: {"params_ema": state, "params": {name: torch.zeros_like(value) for name, value in state.items()}},
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
    "model": lambda state: {"model": state},
    "module": lambda state: {"params": {f"module.{name}": value for name, value in state.items()}},
}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappings_are_taken_off(tmp_path, wrapping, suffix):
    reference = official("swinir_light_x4")
    file = tmp_path / f"weights{suffix}"
    torch.save(WRAPPINGS[wrapping](reference.state_dict()), file)
    assert_same_output(load_checkpoint(file).network, reference)


@pytest.mark.parametrize("prefix", ["", "params.", "params_ema.", "params.module."])
def test_safetensors_bare_or_with_a_prefix(tmp_path, prefix):
    reference = official("swinir_light_x4")
    file = tmp_path / "weights.safetensors"
    save_file({f"{prefix}{name}": value.clone() for name, value in reference.state_dict().items()}, file)
    assert_same_output(load_checkpoint(file).network, reference)


@pytest.mark.parametrize(
    ("name", "network", "norm"),
    [
        ("hat_iln", "hat", "iln"),
        ("hat_ln_stdnorm_off", "hat", "ln"),
        ("restormer_biasfree", "restormer", "ln_biasfree"),
        ("restormer_withbias_gray", "restormer", "ln"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_goldens_without_being_told_what_they_are(golden_root, tmp_path, name, network, norm, suffix):
    golden = load_file(golden_root / f"{name}.safetensors")
    x, expected = golden.pop("__input__"), golden.pop("__output__")
    file = tmp_path / f"golden{suffix}"
    if suffix == ".pth":
        torch.save({"params": {key.partition(".")[2]: value for key, value in golden.items()}}, file)
    else:
        save_file(golden, file)
    loaded = load_checkpoint(file)
    assert (loaded.model["name"], loaded.model["norm"]["name"]) == (network, norm)
    with torch.no_grad():
        assert ((loaded.network(x) - expected).abs().max() / expected.abs().max()).item() <= 1e-5


def test_one_line_says_what_was_recognised(tmp_path, caplog):
    file = tmp_path / "hat.pth"
    torch.save({"params_ema": official("hat_x4").state_dict()}, file)
    with caplog.at_level(logging.INFO, "irformer"):
        load_checkpoint(file)
    (line,) = caplog.messages
    assert line.startswith(f"{file}: official weights under params_ema of hat, norm ln, scale 4, channels 3, features 12, depths 2-1")
    assert "heads 2-3, window 8, upsampler pixelshuffle" in line


def test_official_norms_are_those_of_the_configs(golden_root):
    """Settings that the weights do not determine are those of the official norms' configs."""
    golden = load_file(golden_root / "hat_iln.safetensors")
    weights = {name.removeprefix("params_ema."): value for name, value in golden.items()}
    assert recognize(weights)["norm"] == compose_norm("iln")
    assert recognize(official("hat_x4").state_dict())["norm"] == compose_norm("ln")
    restormer = load_file(golden_root / "restormer_biasfree.safetensors")
    found = recognize({name.removeprefix("params."): value for name, value in restormer.items()})
    assert found["norm"] == compose_norm("ln_biasfree")
    assert found["ffn_expansion_factor"] == 2.66


def compose_norm(name: str) -> dict:
    from irformer.config.compose import norm_config

    return norm_config(name)


def test_what_weights_do_not_say_can_be_overridden(tmp_path):
    reference = official("swinir_light_x4")
    reference.img_range = 255.0
    file = tmp_path / "weights.pth"
    torch.save(reference.state_dict(), file)
    assert_same_output(load_checkpoint(file, {"pixel_range": 255.0}).network, reference)
    assert load_checkpoint(file, with_named_norms({"norm": "iln"})).model["norm"] == compose_norm("iln")
    assert load_checkpoint(file, {"norm.block.eps": 1e-6}).model["norm"]["block"]["eps"] == 1e-6
    with pytest.raises(UserError, match=r"model\.pixel_rang: unknown key; known: .*; did you mean pixel_range\?"):
        load_checkpoint(file, {"pixel_rang": 255.0})


# Refused


def refusal(file: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_checkpoint(file)
    message = str(caught.value)
    assert str(file) in message
    assert "\n" not in message
    assert len(message) < 600
    return message


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_wants_to_run_code_is_refused(tmp_path, legacy):
    file, proof = tmp_path / "evil.pth", tmp_path / "ran"
    state = {**official("swinir_light_x4").state_dict(), "extra": Malicious(proof)}
    torch.save({"params": state}, file, _use_new_zipfile_serialization=not legacy)
    assert "refused, because reading it would run code (" in refusal(file)
    assert not proof.exists()


def test_a_pickled_network_is_refused_and_the_remedy_is_said(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    assert "torch.save(network.state_dict(), FILE)" in refusal(tmp_path / "whole.pt")


@pytest.mark.parametrize("target", ["os.system", "irformer.norms.torch.load", "irformer.norms.F.layer_norm", "irformer.models.nothing"])
def test_a_configuration_may_name_only_our_classes(tmp_path, target):
    network = small("swinir")
    file = tmp_path / "evil.safetensors"
    save_network(file, network, {"name": "evil", "_target_": "irformer.models.SwinIR", "depths": [{"_target_": target}]}, None, None, {})
    assert f"names the class {target}; a file may only name irformer's networks and norms" in refusal(file)


def test_a_configuration_inside_has_to_be_whole(tmp_path):
    file = tmp_path / "part.safetensors"
    save_network(file, small("swinir"), {"name": "swinir"}, None, None, {})
    assert "its configuration lacks _target_; expected the `model` part" in refusal(file)
    save_file({"a": torch.zeros(1)}, file, {"irformer": "{]"})
    assert "the record of its network cannot be read" in refusal(file)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_truncated_file(tmp_path, suffix, share):
    file = tmp_path / f"cut{suffix}"
    export_official(small("swinir"), file)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    assert "damaged or not a " in refusal(file)


def test_what_is_no_checkpoint(tmp_path):
    for suffix in (".pth", ".ckpt", ".safetensors"):
        (tmp_path / f"text{suffix}").write_text("<html>404: not found</html>")
        assert "damaged or not a " in refusal(tmp_path / f"text{suffix}")
    with zipfile.ZipFile(tmp_path / "archive.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "damaged or not a weights file" in refusal(tmp_path / "archive.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    assert "expected weights by name, found a list" in refusal(tmp_path / "list.pth")
    torch.save({"epoch": 1, "lr": 0.1, "best": 2, "name": "x"}, tmp_path / "state.pth")
    assert "contains no weights; expected tensors by name" in refusal(tmp_path / "state.pth")
    assert "found epoch, lr, best and 1 more" in refusal(tmp_path / "state.pth")
    (tmp_path / "photo.png").write_bytes(b"x")
    assert "expected a run's folder or a file ending in .safetensors, .pth, .pt, .ckpt" in refusal(tmp_path / "photo.png")
    assert "no checkpoints/best.safetensors in this folder" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path / "nowhere.pth")


def test_another_family(tmp_path):
    torch.save(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(3, 4)).state_dict(), tmp_path / "other.pth")
    message = refusal(tmp_path / "other.pth")
    assert (
        "expected the weights of SwinIR, HAT, DRCT, Restormer or a network that spandrel supports; "
        "found 0.weight, 0.bias, 1.weight and 1 more" in message
    )


def test_missing_unexpected_and_misshapen_keys_are_named(tmp_path):
    state = official("swinir_classical_x2").state_dict()

    def saved(changed: dict[str, Tensor]) -> Path:
        torch.save(changed, tmp_path / "changed.pth")
        return tmp_path / "changed.pth"

    norms = [name for name in state if "norm2" in name]
    message = refusal(saved({name: value for name, value in state.items() if name not in norms}))
    assert f"do not match the configured SwinIR: {len(norms)} missing ({', '.join(norms[:3])} and {len(norms) - 3} more)" in message
    assert "1 unexpected (extra.weight)" in refusal(saved({**state, "extra.weight": torch.zeros(2)}))
    assert "1 of a different shape (norm.weight [5] instead of [12])" in refusal(saved({**state, "norm.weight": torch.zeros(5)}))
    table = "layers.1.residual_group.blocks.0.attn.relative_position_bias_table"
    assert f"its names are those of swinir weights, but {table} is missing" in refusal(
        saved({name: value for name, value in state.items() if name != table})
    )


# Community


def compact(path: Path) -> nn.Module:
    torch.manual_seed(0)
    network = Compact(num_in_ch=3, num_out_ch=3, num_feat=4, num_conv=2, upscale=2).eval()
    torch.save({"params": network.state_dict()}, path)
    return network


def test_anything_else_is_built_by_spandrel(tmp_path, caplog):
    reference = compact(tmp_path / "compact.pth")
    with caplog.at_level(logging.INFO, "irformer"):
        loaded = load_checkpoint(tmp_path / "compact.pth")
    assert "weights of RealESRGAN Compact, built by spandrel, scale 2, channels 3" in caplog.text
    network = loaded.network
    assert (network.scale, network.in_channels, network.size_multiple, loaded.task) == (2, 3, 1, None)
    assert_same_output(network, lambda x: reference(x).clamp(0, 1))
    assert NetworkRestorer(network, "reflect_min")(picture(9, 7)).shape == (18, 14, 3)
    with pytest.raises(UserError, match=r"which spandrel builds from the weights alone: model\.norm cannot be changed"):
        load_checkpoint(tmp_path / "compact.pth", {"norm": "iln"})


def test_without_spandrel_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    compact(tmp_path / "compact.pth")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    assert "pip install irformer[community]" in refusal(tmp_path / "compact.pth")


# Runs


def test_a_training_checkpoint_rebuilds_the_averaged_network(tmp_path):
    """last.ckpt describes its network and contains the averaged weights, which results are measured with."""
    from rich.console import Console

    from irformer.training.build import build_run

    model = ["norm=layerscale", "model=swinir_tiny", "model.embed_dim=8", "model.depths=[2]", "model.num_heads=[2]"]
    words = [
        *model,
        "data=sample",
        "test_sets=[sample]",
        "trainer=cpu",
        "logger=csv",
        "batch_size=1",
        "patch_size=16",
        "trainer.max_steps=2",
    ]
    run = build_run(compose("train", [*words, "name=test", f"paths.data={tmp_path}"]), tmp_path / "run")
    run.execute(Console(quiet=True))
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    loaded = load_checkpoint(file)
    assert (loaded.model["name"], loaded.model["norm"]["name"], loaded.task, loaded.step) == ("swinir_tiny", "layerscale", "sr_x2", 2)
    task = OmegaConf.to_container(compose("train", words).task, resolve=True)
    assert task["degradation"] == {"_target_": "irformer.tasks.degradations.Downscale", "scale": 2, "variant": "matlab_uint8"}
    assert loaded.task_config == task
    assert load_checkpoint(tmp_path / "run").task_config == task
    averaged = torch.load(file, weights_only=True)["state_dict"]
    assert all(torch.equal(value, averaged[f"network.{name}"]) for name, value in loaded.network.state_dict().items())

    content = torch.load(file, weights_only=True)
    del content["irformer"]
    torch.save(content, tmp_path / "unsaid.ckpt")
    assert "a training checkpoint without a description of its network" in refusal(tmp_path / "unsaid.ckpt")


def test_a_record_may_lack_the_task(tmp_path):
    file = tmp_path / "old.safetensors"
    model = model_config("swinir_tiny", "iln", 2, 3)
    save_network(file, build_network(model), model, "sr_x2", 3, {})
    with safe_open(file, framework="pt") as opened:
        assert "task_config" not in json.loads(opened.metadata()["irformer"])
    assert (load_checkpoint(file).task, load_checkpoint(file).task_config) == ("sr_x2", None)


def test_an_exported_file_keeps_the_task(tmp_path):
    task: dict = {"name": "mine", "scale": 2, "protocol": {"border": 2}}
    model = model_config("swinir_tiny", "iln", 2, 3)
    save_network(tmp_path / "in.safetensors", build_network(model), model, "mine", 3, {}, task)
    export_checkpoint(load_checkpoint(tmp_path / "in.safetensors"), tmp_path / "out.safetensors", "safetensors")
    assert load_checkpoint(tmp_path / "out.safetensors").task_config == task
