"""scripts/inspect.py: what a checkpoint is, its features, and the verdict on its precision."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from precision.networks import TINY, network
from torch import nn

from irformer.commands.inspect import inspect
from irformer.config.compose import model_config
from irformer.dynamics.features import probe
from irformer.errors import UserError
from irformer.inspection import evidence as rules
from irformer.inspection.checkpoint_report import STAGES, Inspection, inspect_checkpoint
from irformer.inspection.evidence import Evidence, judge
from irformer.inspection.probing_photos import PHOTOS, probing_photos
from irformer.inspection.receptive_field import ReceptiveField, receptive_field
from irformer.models import External
from irformer.models.flops import count_flops
from irformer.precision import scale_stream
from irformer.weights.checkpoints import Checkpoint, load_checkpoint, save_network
from irformer.weights.licenses import license_of
from irformer.weights.overrides import override_model

REPOSITORY = Path(__file__).parent.parent
SIZE = 16


def checkpoint(net: nn.Module, name: str = "swinir_tiny", norm: str = "ln") -> Checkpoint:
    model = override_model(model_config(name, norm, 2, 3), TINY[name])
    return Checkpoint(Path("x.safetensors"), net, model, "sr_x2", 7)


@pytest.fixture(scope="module")
def found() -> Inspection:
    stages: list[str] = []
    found = inspect_checkpoint(checkpoint(network(scale=2)), SIZE, license="mit", stage=stages.append)
    assert stages == list(STAGES)
    return found


def test_what_the_network_is(found):
    net, told = network(scale=2), found.description
    assert (told.name, told.norm, told.scale, told.channels) == ("swinir_tiny", "ln, ends same, standardize_input False", 2, 3)
    assert (told.groups, told.blocks, told.size_multiple, told.task, told.step, told.license) == (2, 4, 8, "sr_x2", 7, "mit")
    assert told.sizes["embed_dim"] == 16
    assert told.sizes["depths"] == [2, 2]
    assert told.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert told.flops == count_flops(net, SIZE, SIZE)


def test_features_are_those_of_the_probe_on_the_photos(found):
    net = network(scale=2)
    batch = torch.cat(list(probing_photos(3, 2, SIZE).values()))
    expected = probe(net, batch, ["groups", "blocks"])
    assert [layer.name for layer in found.layers] == [
        f"layers.{group}{part}" for group in range(2) for part in (*(f".residual_group.blocks.{i}" for i in range(2)), "")
    ], "in the order of computation"
    for layer in found.layers:
        assert layer.mean_square == pytest.approx(expected[layer.name]["mean_square"], rel=1e-5)
        assert layer.max_abs == pytest.approx(expected[layer.name]["max_abs"], rel=1e-5)
        assert layer.range_share == layer.max_abs / 65504
    assert found.peak >= max(layer.max_abs for layer in found.layers) * (1 - 1e-5)
    assert found.photos == list(PHOTOS)
    assert found.device == "cpu"
    assert found.final_norm == "norm"
    assert set(found.final_correlations) == {"weight_correlation", "bias_correlation"}
    assert len(found.bias_smoothness) == 4


def test_a_normal_stream_is_safe_in_fp16(found):
    assert found.verdict.words == rules.FP16
    assert [run.precision for run in found.evidence] == ["fp16", "fp16_safe", "bf16"]
    assert all(run.values == 4 * 3 * (2 * SIZE) ** 2 and not run.overflows for run in found.evidence)
    half, safe, wide = (run.lowest_psnr for run in found.evidence)
    assert safe > half > wide > 40


@pytest.mark.parametrize("name", ["swinir_tiny", "restormer_tiny"])
def test_a_stream_beyond_65504_needs_float32(name):
    net = network(name, scale=2)
    found = inspect_checkpoint(checkpoint(scale_stream(net, 2.0**20), name), SIZE)
    assert found.verdict.words == rules.FP32_STREAM
    assert found.verdict.reason.startswith(f"fp16 overflows in {found.evidence[0].overflowed_layers} layers, first in ")
    assert found.evidence[0].overflowed_layers > 10
    assert found.evidence[0].non_finite == found.evidence[0].values
    assert math.isnan(found.evidence[0].lowest_psnr)
    assert found.peak > 65504


class Growing(nn.Module):
    """A network of another project whose features are large, and whose structure only its module tree tells."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.ModuleList([nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.PReLU()) for _ in range(3)])
        self.norm = nn.GroupNorm(1, 8)
        self.tail = nn.Conv2d(8, 3, 3, padding=1)
        self.norm.weight.data = torch.linspace(1, 2, 8)
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.gain * self.head(x)
        for part in self.body:
            x = x + part(x)
        return self.tail(self.norm(x))


def test_a_network_of_another_project_is_inspected_by_its_module_tree():
    model = {"name": "growing", "scale": 1}
    found = inspect_checkpoint(Checkpoint(Path("x.pth"), External(Growing(1.0)), model, None, None), SIZE)
    assert [layer.name for layer in found.layers] == [f"network.body.{i}" for i in range(3)]
    assert {layer.kind for layer in found.layers} == {"groups"}
    assert (found.description.norm, found.description.sizes, found.description.step) == ("GroupNorm", {}, None)
    assert found.final_norm == "network.norm"
    assert "weight_correlation" in found.final_correlations
    assert "bias_correlation" not in found.final_correlations, "all entries are equal"
    assert found.description.receptive_field == ReceptiveField(1024, True), "a norm over the image"
    large = inspect_checkpoint(Checkpoint(Path("x.pth"), External(Growing(1e6)), model, None, None), SIZE)
    assert large.verdict.words in (rules.FP32_STREAM, rules.BF16)
    assert large.evidence[0].overflows


def run(precision: str, psnr: float = 70.0, overflowed: int = 0, fault: str | None = None) -> Evidence:
    first = "layers.3" if overflowed else None
    return Evidence(precision, "words", {"a": psnr + 5, "b": psnr}, 100, 100 if overflowed else 0, overflowed, first, fault)


@pytest.mark.parametrize(
    ("largest", "runs", "words", "reason"),
    [
        (
            100,
            [run("fp16", 50.0), run("fp16_safe"), run("bf16", 40)],
            rules.FP16,
            "use 0.153 % of the range of float16, and fp16 has 50.0 dB",
        ),
        (
            100,
            [run("fp16", 49.9), run("fp16_safe"), run("bf16", 40)],
            rules.FP32_STREAM,
            "fp16 has only 49.9 dB against fp32; fp16_safe has 70",
        ),
        (40000, [run("fp16"), run("fp16_safe"), run("bf16", 40)], rules.FP32_STREAM, "40,000, uses 61.1 % of the range of float16, which"),
        (1e6, [run("fp16", math.nan, 3), run("fp16_safe"), run("bf16", 40)], rules.FP32_STREAM, "overflows in 3 layers, first in layers.3"),
        (1e6, [run("fp16", math.nan, 3), run("fp16_safe", 59.9), run("bf16", 41)], rules.BF16, "59.9 dB against fp32; bf16 has 41.0 dB"),
        (
            1e6,
            [run("fp16", math.nan, 3), run("fp16_safe", math.nan, 1), run("bf16", 41)],
            rules.BF16,
            "fp16_safe overflows in 1 layer, first",
        ),
        (1e6, [run("fp16", fault="no"), run("fp16_safe", fault="no"), run("bf16", 41)], rules.BF16, "fp16 does not run (no)"),
        (1e6, [run("fp16", fault="no"), run("fp16_safe", fault="no"), run("bf16", fault="no")], rules.FP32, "bf16 does not run (no)"),
    ],
)
def test_the_verdict_follows_its_rule(largest, runs, words, reason):
    verdict = judge(largest, runs)
    assert verdict.words == words
    assert reason in verdict.reason


def test_a_photo_that_is_not_finite_has_the_lowest_psnr():
    assert math.isnan(replace(run("fp16"), psnr={"a": 60.0, "b": math.nan, "c": 20.0}).lowest_psnr)
    assert run("fp16", 60.0).lowest_psnr == 60.0
    assert replace(run("fp16"), psnr={"a": math.inf}).lowest_psnr == math.inf


class Chain(nn.Module):
    """Convolutions of known reach."""

    in_channels = 3

    def __init__(self, *layers: nn.Module, scale: int = 1, size_multiple: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.scale = scale
        self.size_multiple = size_multiple

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def conv(kernel: int, dilation: int = 1, channels: int = 3) -> nn.Conv2d:
    return nn.Conv2d(3, channels, kernel, padding=dilation * (kernel // 2), dilation=dilation)


class Windows(nn.Module):
    """The mean of each window of 8 columns, shifted by 4 if asked: what window attention reaches."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.roll(-self.shift, 3).unflatten(3, (-1, 8))
        return (self.weight * (x + x.mean(-1, keepdim=True))).flatten(3).roll(self.shift, 3)


@pytest.mark.parametrize(
    ("net", "pixels"),
    [
        (Chain(conv(3)), 3),
        (Chain(conv(5), nn.ReLU(), conv(3, dilation=4)), 13),
        (Chain(conv(3), conv(3, channels=12), nn.PixelShuffle(2), scale=2), 5),
        (Chain(*(conv(9) for _ in range(40))), 321),
        (Chain(Windows(0), size_multiple=8), 8),
        (Chain(Windows(0), Windows(4), size_multiple=8), 16),
        (Chain(conv(3), Windows(0), size_multiple=8), 16),
    ],
)
def test_the_receptive_field_is_exact(net, pixels):
    assert receptive_field(net) == ReceptiveField(pixels, False)


@pytest.mark.parametrize(("norm", "whole"), [("ln", False), ("iln", True), ("instance", True), ("rms", False)])
def test_statistics_of_the_image_make_the_field_the_image(norm, whole):
    field = receptive_field(network(norm=norm))
    assert field is not None
    assert field.whole == whole
    assert field.pixels < 128 or field.pixels == 1024


class Failing(Chain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(x).all():
            raise RuntimeError("NaN cannot be sorted")
        return super().forward(x)


class Replacing(Chain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(super().forward(x))


@pytest.mark.parametrize("kind", [Failing, Replacing])
def test_a_network_that_does_not_let_nan_pass_has_an_unknown_field(kind):
    assert receptive_field(kind(conv(3))) is None


def test_photos_have_the_channels_and_the_size_of_the_network():
    for channels, scale in ((3, 1), (1, 2), (4, 4)):
        photos = probing_photos(channels, scale, 24)
        assert {tuple(photo.shape) for photo in photos.values()} == {(1, channels, 24, 24)}
        assert all(photo.min() >= 0 and photo.max() <= 1 and photo.std() > 0.02 for photo in photos.values())
    with pytest.raises(UserError, match="size 80: the photos have 75 pixels after reduction by 4; use at most that"):
        probing_photos(3, 4, 80)


def test_licenses_are_read_from_the_file_or_the_card_beside_it(tmp_path):
    from safetensors.torch import save_file

    plain, stated = tmp_path / "a.safetensors", tmp_path / "b" / "b.safetensors"
    stated.parent.mkdir()
    save_file({"x": torch.ones(1)}, plain)
    save_file({"x": torch.ones(1)}, stated, metadata={"license": "Apache-2.0"})
    assert (license_of(plain), license_of(stated)) == (None, "Apache-2.0")
    for card, expected in {
        "---\nlicense: cc-by-4.0\ntags: [x]\n---\ntext": "cc-by-4.0",
        "---\nlicense: [1]\n---\n": None,
        "---\nlicense: mit\n": None,
        "license: mit\n": None,
        "---\n{\n---\n": None,
        "": None,
    }.items():
        (tmp_path / "README.md").write_text(card)
        assert license_of(plain) == expected
        assert license_of(tmp_path / "weights.pth") == expected
    assert license_of(plain, tmp_path / "none.md") is None


# The command


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Type words after scripts/inspect.py in a folder with a checkpoint; gives standard output."""
    monkeypatch.chdir(tmp_path)
    model = override_model(model_config("swinir_tiny", "iln", 2, 3), TINY["swinir_tiny"])
    save_network(tmp_path / "w.safetensors", network(norm="iln", scale=2), model, "sr_x2", 7, {})

    def type_words(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["inspect.py", *words, "--size", str(SIZE), "--device", "cpu"])
        inspect()
        return capsys.readouterr().out

    return type_words


def test_the_report_is_printed_and_written(typed, tmp_path):
    printed = typed("w.safetensors", "--json", "out/a.json", "--page", "out/a.html")
    lines = printed.splitlines()
    assert "norm             iln, ends affine, standardize_input True" in lines
    assert "receptive field  whole image (measured up to 1,024 pixels)" in lines
    assert lines[-3].startswith("verdict: safe in fp16: activations use 0.0")
    assert lines[-2:] == ["wrote out/a.json", "wrote out/a.html"]
    record = json.loads((tmp_path / "out/a.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert record["verdict"]["words"] == "safe in fp16"
    assert "at least 50 dB" in record["verdict"]["rule"]
    assert record["description"]["receptive_field"] == {"pixels": 1024, "whole": True}
    assert [layer["kind"] for layer in record["layers"]] == ["blocks", "blocks", "groups"] * 2
    assert record["evidence"][0]["lowest_psnr"] == min(record["evidence"][0]["psnr"].values())
    page = (tmp_path / "out/a.html").read_text()
    assert "<h1>swinir_tiny: safe in fp16</h1>" in page
    assert page.count('src="data:image/png;base64,') == 2, "magnitudes and position biases"
    assert "http:" not in page
    assert "https:" not in page


def test_json_alone_can_be_piped(typed):
    assert json.loads(typed("w.safetensors", "--json", "-"))["description"]["name"] == "swinir_tiny"


@pytest.mark.parametrize("option", ["--json", "--page"])
def test_the_checkpoint_is_not_overwritten(typed, tmp_path, capsys, option):
    before = (tmp_path / "w.safetensors").read_bytes()
    with pytest.raises(SystemExit):
        typed("w.safetensors", option, "./w.safetensors")
    assert "w.safetensors: is the checkpoint, which would be overwritten; choose another file" in capsys.readouterr().err
    assert (tmp_path / "w.safetensors").read_bytes() == before


def test_an_overflow_is_strict_json(tmp_path):
    found = inspect_checkpoint(checkpoint(scale_stream(network(scale=2), 2.0**20)), SIZE)
    text = json.dumps(found.as_dict(), allow_nan=False)
    assert json.loads(text)["evidence"][0]["psnr"]["coffee.png"] == "NaN"


@pytest.mark.slow
def test_a_community_network(weights_root):
    found = inspect_checkpoint(load_checkpoint(weights_root / "craft_x4.pth"), SIZE)
    assert [layer.name for layer in found.layers if layer.kind == "groups"] == [f"network.layers.{i}" for i in range(4)]
    assert found.description.blocks > 4
    assert np.diff([layer.mean_square for layer in found.layers if layer.kind == "groups"]).min() > 0, "the stream grows with depth"
    assert found.layers[-1].top1_share > 0.9
    assert found.verdict.words == rules.FP16


def test_other_scripts_find_the_standard_library_and_not_this_script():
    """Python looks for modules in the folder of a script first."""
    code = "import sys; sys.path.insert(0, 'scripts'); import inspect, dataclasses; print(inspect.__file__); inspect.signature(print)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == Path(sys.modules["inspect"].__file__)


def test_the_script_itself_runs(typed, tmp_path):
    words = [sys.executable, str(REPOSITORY / "scripts" / "inspect.py"), "w.safetensors", "--size", "16", "--device", "cpu"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("verdict: safe in fp16: ")
