"""Weights exported for other tools, and weights that training starts from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import spandrel
import torch
from official import SWINIR_SCRIPT, assert_same_output, official, small, swinir_of_script
from safetensors.torch import load_file

from irformer.commands.export import export
from irformer.config.compose import build_network, model_config
from irformer.errors import UserError
from irformer.weights.checkpoints import load_checkpoint, save_network, transfer_weights
from irformer.weights.exports import export_checkpoint, export_official
from irformer.weights.formats import official_weights

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("name", "scale", "overrides"),
    [
        ("swinir", 2, {}),
        ("swinir", 3, {"upsampler": "pixelshuffledirect"}),
        ("swinir", 4, {"upsampler": "nearest+conv", "resi_connection": "3conv"}),
        ("swinir", 1, {"upsampler": "", "window_size": 7, "pixel_range": 255.0}),
        ("hat", 4, {}),
        ("hat", 3, {"overlap_ratio": 0.25, "resi_connection": "identity"}),
        ("drct", 2, {}),
        ("drct", 4, {"window_size": 16}),
    ],
)
def test_spandrel_loads_an_official_export_and_gives_our_output(tmp_path, name, scale, overrides, suffix):
    network = small(name, scale=scale, **overrides)
    file = tmp_path / f"export{suffix}"
    export_official(network, file)
    descriptor = spandrel.ModelLoader().load_from_file(file)
    assert descriptor.scale == scale
    assert_same_output(network, descriptor.model.eval())
    assert_same_output(load_checkpoint(file).network, network)


@pytest.mark.parametrize("task", SWINIR_SCRIPT)
def test_the_official_test_script_of_swinir_loads_an_export_strictly(tmp_path, task):
    """Official networks survive a round trip with all masks, under the key that SwinIR's script reads. KAIR's reads the same files."""
    key, arguments = SWINIR_SCRIPT[task]
    expected = swinir_of_script(task)
    torch.save({key: expected.state_dict()}, tmp_path / "in.pth")
    size = arguments["img_size"] if task.startswith("classical_sr") else None
    export_official(load_checkpoint(tmp_path / "in.pth").network, tmp_path / "out.pth", training_patch_size=None if size == 64 else size)
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    reader = swinir_of_script(task)
    for parameter in reader.parameters():
        parameter.data.zero_()
    # As the script does: without its key it takes the whole file, in which no key is the name of a weight.
    reader.load_state_dict(found.get(key, found), strict=True)
    state = reader.state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.state_dict().items())


@pytest.mark.parametrize("name", ["hat", "drct", "restormer"])
def test_an_export_lies_under_both_keys_and_once_in_the_file(tmp_path, name):
    """Restormer's test scripts read params, BasicSR's networks params_ema."""
    network = small(name)
    export_official(network, tmp_path / "out.pth")
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    assert found["params"].keys() == found["params_ema"].keys()
    assert all(found["params"][key].data_ptr() == value.data_ptr() for key, value in found["params_ema"].items())
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in found["params"].values()}
    assert (tmp_path / "out.pth").stat().st_size < sum(storages.values()) + 1000 * len(found["params"])


@pytest.mark.parametrize(
    ("name", "overrides", "size", "message"),
    [
        ("swinir", {}, 50, r"training_patch_size=50: expected a multiple of the window, 8, from 16 to 1024"),
        ("swinir", {}, 8, r"training_patch_size=8: expected a multiple of the window, 8, from 16 to 1024"),
        ("swinir", {"window_size": 7}, 64, r"training_patch_size=64: expected a multiple of the window, 7, from 14 to 1024"),
        ("swinir", {}, 10**9, r"training_patch_size=1000000000: expected a multiple"),
        ("swinir", {}, -16, r"training_patch_size=-16: expected a multiple"),
        ("hat", {}, 48, r"training_patch_size=48: official weights of HAT contain no masks; omit it"),
        ("restormer", {}, 48, r"training_patch_size=48: official weights of Restormer contain no masks; omit it"),
    ],
)
def test_masks_of_an_impossible_size_are_refused(tmp_path, name, overrides, size, message, attempts):
    with pytest.raises(UserError, match=message):
        export_official(small(name, **overrides), tmp_path / "out.pth", training_patch_size=size)
    assert not list(tmp_path.iterdir())
    attempts.refused("exports")


@pytest.mark.parametrize("name", ["swinir_classical_x2", "swinir_noise_gray", "swinir_jpeg", "hat_x4", "hat_x2", "drct_x2"])
def test_an_export_is_the_official_state_to_the_last_buffer(tmp_path, name):
    state = official(name).state_dict()
    torch.save(state, tmp_path / "in.pth")
    export_official(load_checkpoint(tmp_path / "in.pth").network, tmp_path / "out.pth")
    again = torch.load(tmp_path / "out.pth", weights_only=True)["params_ema"]
    assert set(again) == set(state)
    assert all(torch.equal(again[key], value) for key, value in state.items())


@pytest.mark.parametrize("name", ["hat_iln", "restormer_biasfree", "restormer_withbias_gray"])
def test_goldens_are_exported_as_they_were(golden_root, tmp_path, name):
    golden = {key.partition(".")[2]: value for key, value in load_file(golden_root / f"{name}.safetensors").items() if key[0] != "_"}
    export_official(load_checkpoint(golden_root / f"{name}.safetensors").network, tmp_path / "out.safetensors")
    again = load_file(tmp_path / "out.safetensors")
    assert set(again) == set(golden)
    assert all(torch.equal(again[key], value) for key, value in golden.items())


@pytest.mark.parametrize(
    ("name", "norm", "overrides", "message"),
    [
        ("swinir", "iln", {}, "the official SwinIR has no ILN, only LayerNorm; export with --format safetensors"),
        ("hat", "rms", {}, "the official HAT has no RMSNorm, only LayerNorm and ILN"),
        ("drct", "none", {}, "the official DRCT has no NoNorm"),
        ("restormer", "iln", {}, "the official Restormer has no ILN, only LayerNorm and BiasFreeLayerNorm"),
        ("hat", "ln", {"upsampler": "pixelshuffledirect"}, "the official HAT has no upsampler 'pixelshuffledirect', only pixelshuffle"),
        ("hat", "ln", {"conv_scale": 0.02}, r"blocks\.0\.conv_scale is 0\.02, but would be read as 0\.01"),
        ("hat", "iln", {"norm.block.eps": 1e-6}, r"norm1\.eps is 1e-06, but would be read as 0\.0001"),
        ("hat", "iln", {"norm.standardize_input": False}, r"scaling\.std is .*, but would be read as"),
        ("hat", "iln", {"norm.ends": "ln"}, r"patch_embed\.norm is LayerNorm, but would be read as Affine"),
        ("swinir", "ln", {"pixel_range": 255.0}, r"scaling\.std is .*, but would be read as"),
    ],
)
def test_what_the_official_code_lacks_is_refused_by_name(tmp_path, name, norm, overrides, message):
    with pytest.raises(UserError, match=message):
        export_official(small(name, norm, **overrides), tmp_path / "out.pth")
    assert not list(tmp_path.iterdir())


def test_an_export_needs_a_known_suffix(tmp_path):
    with pytest.raises(
        UserError, match=r"out\.onnx: expected a file name ending in \.pth \(under params and params_ema\) or \.safetensors"
    ):
        export_official(small("swinir"), tmp_path / "out.onnx")


# Fine-tuning


@pytest.mark.parametrize("name", ["swinir", "hat", "drct"])
@pytest.mark.parametrize("scale", [3, 4])
def test_weights_move_to_another_scale(tmp_path, name, scale):
    """The body and the convolutions around the upsampling ones are loaded bit-exactly; the latter keep their random initialization."""
    source, target = small(name, scale=2), small(name, scale=scale)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    export_official(source, tmp_path / "x2.pth")
    transfer = transfer_weights(target, tmp_path / "x2.pth")
    old, new = source.state_dict(), target.state_dict()
    fresh = [key for key in new if key.startswith("upsample.")]
    assert list(transfer.initialized) == fresh
    assert all(torch.equal(new[key], before[key] if key in fresh else old[key]) for key in new)
    counts = [sum(new[key].numel() for key in keys) for keys in (transfer.loaded, transfer.initialized)]
    assert sum(counts) == sum(p.numel() for p in target.parameters())
    text = (
        f"loaded {counts[0]:,} parameters in {len(transfer.loaded)} tensors; "
        f"randomly initialized {counts[1]:,} parameters in {len(fresh)} tensors (upsample)"
    )
    assert text in str(transfer)
    assert f"official weights of {name}, norm ln, scale 2" in str(transfer)


def test_weights_of_the_same_network_are_kept_whole(tmp_path, golden_root):
    golden = load_checkpoint(golden_root / "hat_iln.safetensors").network
    target = load_checkpoint(golden_root / "hat_ln_stdnorm_off.safetensors").network
    assert "the whole network" in str(transfer_weights(target, golden_root / "hat_iln.safetensors"))
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in golden.state_dict().items())


def test_another_upsampler_is_fresh(tmp_path):
    export_official(small("swinir", scale=2), tmp_path / "classical.pth")
    transfer = transfer_weights(small("swinir", scale=2, upsampler="pixelshuffledirect"), tmp_path / "classical.pth")
    assert list(transfer.initialized) == ["upsample.0.weight", "upsample.0.bias"]


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        (
            lambda: small("swinir", scale=4, embed_dim=16),
            r"of a different shape \(conv_first\.weight \[8, 3, 3, 3\] instead of \[16, 3, 3, 3\]",
        ),
        (lambda: small("swinir", scale=4, depths=[2, 2]), r"missing \(layers\.1\.residual_group\.blocks\.1\.norm1\.weight"),
        (lambda: small("hat", scale=4), r"missing \(layers\.0\.residual_group\.blocks\.0\.conv_block\.cab\.0\.weight"),
        (lambda: small("swinir", "none", scale=4), r"unexpected \(patch_embed\.norm\.weight"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, target, fault):
    export_official(small("swinir", scale=2), tmp_path / "x2.pth")
    network = target()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(UserError, match=rf"init_from=.*: found official weights of swinir, norm ln, .*, which do not match the .*{fault}"):
        transfer_weights(network, tmp_path / "x2.pth")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.slow
def test_the_export_script(tmp_path):
    network = small("hat", scale=4)
    torch.save({"params": official_weights(network)}, tmp_path / "in.pth")

    def run(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(REPOSITORY / "scripts" / "export.py"), *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})

    ours = run("in.pth", "ours.safetensors")
    assert ours.returncode == 0, ours.stderr
    assert "in.pth: official weights under params of hat, norm ln, scale 4" in ours.stderr
    assert load_checkpoint(tmp_path / "ours.safetensors").model == load_checkpoint(tmp_path / "in.pth").model
    back = run("ours.safetensors", "back.pth", "--format", "official")
    assert back.returncode == 0, back.stderr
    assert_same_output(load_checkpoint(tmp_path / "back.pth").network, network)
    wrong = run("ours.safetensors", "again.pth", "--format", "official", "--training-patch-size", "48")
    message = "error: ours.safetensors: training_patch_size=48: official weights of HAT contain no masks; omit it\n"
    assert (wrong.returncode, wrong.stderr) == (1, message)


@pytest.mark.parametrize(
    ("out", "format", "size", "message"),
    [
        ("out.onnx", "safetensors", None, r"^\S*out\.onnx: expected a file name ending in \.safetensors, or --format official$"),
        ("out.onnx", "official", None, r"^\S*out\.onnx: expected a file name ending in \.pth \("),
        ("out.safetensors", "safetensors", 48, r"^training_patch_size=48: only official files contain masks; .* add --format official$"),
        ("out.pth", "official", None, r"^\S*in\.safetensors: the official SwinIR has no RMSNorm, only LayerNorm; export with"),
    ],
)
def test_an_impossible_export_of_a_checkpoint_is_refused(tmp_path, out, format, size, message, attempts):
    model = model_config("swinir_tiny", "rms", 2, 3)
    save_network(tmp_path / "in.safetensors", build_network(model), model, "sr_x2", 3, {})
    with pytest.raises(UserError, match=message) as refusal:
        export_checkpoint(load_checkpoint(tmp_path / "in.safetensors"), tmp_path / out, format, size)
    assert "\n" not in str(refusal.value)
    assert [file.name for file in tmp_path.iterdir()] == ["in.safetensors"]
    attempts.refused("exports")


def test_the_export_script_does_not_overwrite_its_checkpoint(tmp_path, monkeypatch, capsys, attempts):
    model = model_config("swinir_tiny", "ln", 2, 3)
    path = tmp_path / "in.safetensors"
    save_network(path, build_network(model), model, "sr_x2", 3, {})
    before = path.read_bytes()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["export.py", str(path), "./in.safetensors"])
    with pytest.raises(SystemExit):
        export()
    assert "error: in.safetensors: is the checkpoint, which would be overwritten; choose another file" in capsys.readouterr().err
    assert path.read_bytes() == before
    attempts.refused("exports")
