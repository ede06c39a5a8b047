"""Networks built by spandrel: all its architectures, their padding, and irformer's weights files of them."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import spandrel
import torch
from conftest import picture
from torch import nn

from irformer.commands.common import device
from irformer.config.compose import compose, instantiate
from irformer.data.test_sets import find_test_set
from irformer.errors import UserError
from irformer.evaluation.evaluate import evaluate
from irformer.evaluation.restorers import NetworkRestorer, to_image, to_tensor
from irformer.weights.checkpoints import load_checkpoint, transfer_weights
from irformer.weights.community import CommunityNetwork, load_community
from irformer.weights.exports import export_checkpoint

REPOSITORY = Path(__file__).parent.parent

_TRANSFORMER = {"embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 8, "mlp_ratio": 2, "upscale": 2}
# Architectures of spandrel by id: class of the network, and arguments of a small one.
ARCHITECTURES: dict[str, tuple[str, dict]] = {
    "ATD": ("ATD", {**_TRANSFORMER, "category_size": 16, "num_tokens": 8, "reducted_dim": 4, "upsampler": "pixelshuffledirect"}),
    "CRAFT": ("CRAFT", {"embed_dim": 32, "depths": [1], "num_heads": [2], "upscale": 2}),
    "Compact": ("Compact", {"num_feat": 4, "num_conv": 2, "upscale": 2}),
    "DAT": ("DAT", {"embed_dim": 32, "depth": [2], "num_heads": [2], "expansion_factor": 2, "split_size": [8, 8]}),
    "DCTLSA": ("DCTLSA", {"nf": 10, "upscale": 2}),
    "DITN": ("DITN", {"dim": 8, "ITL_blocks": 1, "SAL_blocks": 1, "upscale": 2}),
    "DRCT": ("DRCT", {**_TRANSFORMER, "embed_dim": 12, "depths": [6], "window_size": 16, "upsampler": "pixelshuffle", "gc": 4}),
    "DRUNet": ("DRUNet", {"in_nc": 4, "out_nc": 3, "nc": [8, 8, 8, 8], "nb": 2}),
    "DnCNN": ("DnCNN", {"in_nc": 3, "out_nc": 3, "nc": 8, "act_mode": "R"}),
    "ESRGAN": ("ESRGAN", {"num_filters": 8, "num_blocks": 1, "scale": 2}),
    "FBCNN": ("FBCNN", {"nc": [4, 4, 4, 512], "nb": 2}),
    "FDAT": ("FDAT", {"scale": 2, "embed_dim": 16, "num_groups": 1, "depth_per_group": 1, "num_heads": 2, "mid_dim": 16}),
    "FFTformer": ("FFTformer", {"dim": 8, "num_blocks": [1, 1, 1], "num_refinement_blocks": 1}),
    "GRL": (
        "GRL",
        {"embed_dim": 8, "depths": [2], "num_heads_window": [2], "num_heads_stripe": [2], "upscale": 2, "upsampler": "pixelshuffle"},
    ),
    "HAT": ("HAT", {**_TRANSFORMER, "depths": [1], "window_size": 16, "compress_ratio": 4, "squeeze_factor": 4}),
    "HVICIDNet": ("HVICIDNet", {"channels": [8, 8, 16, 32]}),
    "IPT": ("IPT", {"n_feats": 4, "num_heads": 1, "num_layers": 1}),
    "KBNet": ("KBNet_s", {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1, 1, 1], "dec_blk_nums": [1, 1, 1, 1]}),
    "MMRealSR": (
        "MMRealSR",
        {
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 8,
            "num_block": 1,
            "num_grow_ch": 4,
            "num_feats": [8, 8, 8, 8],
            "num_blocks": [1, 1, 1, 1],
        },
    ),
    "MixDehazeNet": ("MixDehazeNet", {"embed_dims": [8, 16, 32, 16, 8]}),
    "MoESR": ("MoESR", {"scale": 2, "dim": 16, "n_blocks": 1, "n_block": 1}),
    "MoSR": ("MoSR", {"upscale": 2, "n_block": 1, "dim": 16}),
    "NAFNet": ("NAFNet", {"width": 8, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}),
    "OmniSR": ("OmniSR", {"num_feat": 16, "up_scale": 2}),
    "PLKSR": ("PLKSR", {"dim": 16, "n_blocks": 1, "upscaling_factor": 2}),
    "RCAN": ("RCAN", {"scale": 2, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 16}),
    "RGT": ("RGT", {"embed_dim": 32, "depth": [2], "num_heads": [2], "mlp_ratio": 2}),
    "RealCUGAN": ("UpCunet2x", {}),
    "RestoreFormer": (
        "RestoreFormer",
        {"ch": 32, "ch_mult": (1, 1, 1, 1, 1, 1), "num_res_blocks": 1, "embed_dim": 32, "z_channels": 32, "n_embed": 8},
    ),
    "RetinexFormer": ("RetinexFormer", {"n_feat": 8, "stage": 1}),
    "SAFMN": ("SAFMN", {"dim": 8, "n_blocks": 1, "upscaling_factor": 2}),
    "SAFMNBCIE": ("SAFMNBCIE", {"dim": 8, "n_blocks": 1, "num_layers": 1}),
    "SCUNet": ("SCUNet", {"config": [1] * 7}),
    "SPAN": ("SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2}),
    "SeemoRe": ("SeemoRe", {"scale": 2, "num_experts": 2, "num_layers": 1, "embedding_dim": 16}),
    "SwiftSRGAN": ("SwiftSRGAN", {"num_channels": 8, "num_blocks": 1, "upscale_factor": 2}),
    "Swin2SR": ("Swin2SR", {**_TRANSFORMER, "upsampler": "pixelshuffle"}),
    "SwinIR": ("SwinIR", {**_TRANSFORMER, "upsampler": "pixelshuffle"}),
    "Uformer": ("Uformer", {"img_size": 128, "embed_dim": 8, "depths": [1] * 9, "num_heads": [1] * 9}),
}
# Groups that a network calls part by part.
NEVER_CALLED: dict[str, set[str]] = {}
# Not compared with spandrel; docs/community.md explains why.
NOT_COMPARED = {"AuraSR", "GFPGAN", "LaMa"}


def seen_groups(network: CommunityNetwork) -> set[str]:
    """The names of the groups that are called from now on."""
    ran: set[str] = set()
    for name, group in network.groups.items():
        group.register_forward_hook(lambda _m, _i, _o, name=name: ran.add(name))
    return ran


def build(architecture: str) -> nn.Module:
    """A small network of an architecture with all weights random, because some initial weights make the network trivial."""
    torch.manual_seed(0)
    name, arguments = ARCHITECTURES[architecture]
    network = getattr(importlib.import_module(f"spandrel.architectures.{architecture}"), name)(**arguments).eval()
    for parameter in network.parameters():
        parameter.data += 0.03 * torch.randn(parameter.shape)
    return network


def saved(architecture: str, folder: Path) -> Path:
    torch.save({"params": build(architecture).state_dict()}, folder / "in.pth")
    return folder / "in.pth"


def exported(architecture: str, folder: Path) -> Path:
    """A network exported to our format; the original file is deleted."""
    source = saved(architecture, folder)
    export_checkpoint(load_checkpoint(source), folder / "out.safetensors", "safetensors")
    source.unlink()
    return folder / "out.safetensors"


def test_the_table_and_the_page_name_every_architecture():
    known = {support.architecture.id for support in spandrel.MAIN_REGISTRY.architectures()}
    assert known == ARCHITECTURES.keys() | NOT_COMPARED
    page = (REPOSITORY / "docs" / "community.md").read_text(encoding="utf-8").replace(",", " ").replace(".", " ").split()
    assert not known - set(page)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_network_gives_what_spandrel_gives_and_comes_back_from_our_file(tmp_path, architecture):
    """On a size that needs no padding and on an odd one; except CRAFT, whose forward in spandrel always pads."""
    state = build(architecture).state_dict()
    descriptor = spandrel.ModelLoader().load_from_state_dict(dict(state))
    assert descriptor.architecture.id == architecture
    found = load_community(state)
    assert found is not None
    restorer = NetworkRestorer(found[0], "network")
    ran = seen_groups(found[0])
    safetensors.torch.save_file({name: value.clone() for name, value in state.items()}, tmp_path / "in.safetensors")
    side = 64 if architecture == "RestoreFormer" else 32  # it downsamples by 32 before its norms
    right, bottom = descriptor.size_requirements.get_padding(side, side)
    height, width = side + bottom, side + right
    images = [picture(*size, descriptor.input_channels) for size in [(height, width), (height - 3, width - 7)]]
    outputs = [restorer(image) for image in images]
    for image, output in zip(images, outputs, strict=True):
        with torch.no_grad():
            expected = to_image(descriptor(to_tensor(image)))
        assert output.shape == expected.shape
        assert np.array_equal(output, expected) == (architecture != "CRAFT")
    assert found[0].groups, "every network has repeated parts"
    assert ran == set(found[0].groups) - NEVER_CALLED.get(architecture, set())
    if architecture in ("SwinIR", "HAT", "DRCT"):  # loaded from files, these are irformer's networks: test_exports.py
        return
    export_checkpoint(load_checkpoint(tmp_path / "in.safetensors"), tmp_path / "out.safetensors", "safetensors")
    again = load_checkpoint(tmp_path / "out.safetensors")
    assert again.model == {"name": found[1], "spandrel": architecture}
    assert np.array_equal(NetworkRestorer(again.network, "network")(images[1]), outputs[1])


@pytest.mark.parametrize("architecture", ["RCAN", "CRAFT", "Compact"])
def test_a_network_leaves_its_input_as_it_is(architecture):
    """RCAN multiplies its input in place."""
    network = load_community(build(architecture).state_dict())[0]
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = pixels.clone()
    output = network(pixels)
    assert torch.equal(pixels, before)
    assert torch.equal(network(pixels), output)


@pytest.mark.parametrize(("padding", "psnr"), [("network", 32.404), pytest.param("flip_always", 32.420, marks=pytest.mark.slow)])
def test_craft_is_padded_once(weights_root, data_root, padding, psnr):
    """CRAFT x4 on Set5 matches the official code: with reflection as in its training code, with mirroring as in its test script."""
    network = load_checkpoint(weights_root / "craft_x4.pth").network
    task = instantiate(compose("benchmark", ["task=sr_x4", "checkpoint=bicubic"]).task)
    found = evaluate(NetworkRestorer(network, padding), find_test_set("Set5", data_root, task))
    assert found.metrics["psnr_y"] == pytest.approx(psnr, abs=0.001)


# Our file format


@pytest.mark.slow
def test_the_export_script_writes_a_community_network_quietly(tmp_path):
    """CRAFT calls torch.meshgrid, which warns about its future default once per process."""
    file = saved("CRAFT", tmp_path)
    words = [sys.executable, str(REPOSITORY / "scripts" / "export.py"), "in.pth", "out.safetensors"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert (done.returncode, done.stdout) == (0, "wrote out.safetensors\n")
    assert done.stderr.splitlines() == [next(line for line in done.stderr.splitlines() if line.startswith("in.pth: weights of CRAFT"))]
    state = safetensors.torch.load_file(tmp_path / "out.safetensors")
    expected = torch.load(file, weights_only=True)["params"]
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def rewritten(file: Path, change, names: dict[str, str] | None = None) -> Path:
    """Modify the record and the weight names of an exported file."""
    with safetensors.safe_open(file, framework="pt") as opened:
        record = json.loads(opened.metadata()["irformer"])
    change(record["model"])
    state = {(names or {}).get(name, name): value for name, value in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(state, file, metadata={"irformer": json.dumps(record)})
    return file


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        (
            lambda model: model.update(spandrel="os.system"),
            {},
            r"spandrel=os\.system in its record: this version .* no such architecture",
        ),
        (lambda model: model.update(spandrel="ESRGAN"), {}, r"spandrel=ESRGAN in its record: the names of its weights do not match this"),
        (lambda model: model.update(spandrel=["Compact"]), {}, r"spandrel=.* in its record: expected the id of an architecture"),
        (
            lambda model: model.update(_target_="os.system"),
            {},
            r"_target_.* besides spandrel in its record: spandrel builds a network from",
        ),
        (lambda model: model.update(scale=2), {}, r"scale.* besides spandrel in its record"),
        (lambda model: None, {"body.2.weight": "body.2000000000.weight"}, r"body\.2000000000\.weight.*: the number is far beyond its"),
        (lambda model: None, {"body.2.weight": "body.other.weight"}, r"spandrel cannot build it"),
    ],
)
def test_a_record_of_a_community_network_is_data(tmp_path, change, names, message, attempts):
    file = rewritten(exported("Compact", tmp_path), change, names)
    with pytest.raises(UserError, match=message) as refusal:
        load_checkpoint(file)
    assert str(refusal.value).startswith(f"{file}: ")
    assert "\n" not in str(refusal.value)
    attempts.refused("weights files")


def test_an_official_export_of_a_community_network_is_refused_by_file_and_name(tmp_path, attempts):
    checkpoint = load_checkpoint(exported("Compact", tmp_path))
    with pytest.raises(UserError) as refusal:
        export_checkpoint(checkpoint, tmp_path / "official.pth", "official")
    message = "contains RealESRGAN Compact; expected SwinIR, HAT, DRCT or Restormer, the only networks with an official layout here"
    assert str(refusal.value) == f"{checkpoint.path}: {message}"
    assert not (tmp_path / "official.pth").exists()
    attempts.refused("exports")


def test_training_does_not_start_from_an_exported_community_network(tmp_path, attempts):
    file = exported("Compact", tmp_path)
    network = load_checkpoint(saved("SwinIR", tmp_path)).network
    with pytest.raises(UserError, match=r"^init_from=.*out\.safetensors: found weights of '?RealESRGAN Compact'?, built by spandrel"):
        transfer_weights(network, file)
    attempts.refused("weights files")


def test_a_community_network_converts_to_another_dtype_without_warnings(recwarn):
    network = CommunityNetwork(spandrel.ModelLoader().load_from_state_dict(build("Compact").state_dict())).double()
    assert network(torch.rand(1, 3, 5, 7, dtype=torch.float64)).dtype == torch.float64
    assert not recwarn.list


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert device("auto").type == expected
