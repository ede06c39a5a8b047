"""The example package tests/external/grainlab, installed or only importable: training, resuming, evaluation."""

import contextlib
import csv
import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from irformer import create_model, list_models, list_norms, load_network
from irformer.commands.benchmark import benchmark
from irformer.commands.export import export
from irformer.commands.train import train
from irformer.config.compose import compose, options
from irformer.datasets.catalog import SAMPLE_VAL, sample_photos
from irformer.entry import entry
from irformer.errors import UserError
from irformer.imaging.images import read_image, write_image
from irformer.training.build import build_run

PACKAGE = Path(__file__).parent / "external" / "grainlab"
TINY = [
    *("trainer=cpu", "logger=csv", "batch_size=2", "patch_size=16", "data=sample", "data.val=cut", "test_sets=[cut]"),
    *("trainer.max_steps=2", "trainer.log_every_n_steps=1", "callbacks.probe.every=1", "callbacks.monitor=null"),
]
GRAIN = ["experiment=film_grain", "model.dim=8", "model.blocks=2", *TINY]
REMEDY = (
    "trust=[grainlab], --trust grainlab or IRFORMER_TRUST=grainlab, only for a file from a known source; installed packages with "
    "the entry point irformer.configs are trusted"
)
REFUSED = (
    "names the class grainlab.networks.GrainNet; a file may only name irformer's networks and norms, or classes of packages that you "
    f"trust: {REMEDY}"
)


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """A folder into which pip installs grainlab from its pyproject.toml."""
    source, target = tmp_path_factory.mktemp("source") / "grainlab", tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, source)  # building creates files next to the source
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([*install, "--target", str(target), str(source)], check=True, timeout=120)
    return target


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with one small image for validation and tests."""
    (tmp_path / "cut").mkdir()
    write_image(tmp_path / "cut" / "eye.png", read_image(sample_photos(SAMPLE_VAL)[1])[80:113, 100:130])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("grainlab", "scratch")]:
        del sys.modules[name]


@pytest.fixture
def installed(folder, site, monkeypatch) -> Path:
    """The current folder, with grainlab installed."""
    monkeypatch.syspath_prepend(site)
    return folder


@pytest.fixture
def importable(folder, site, monkeypatch) -> Path:
    """The folder of grainlab's configurations, with grainlab importable but not installed."""
    shutil.copytree(site / "grainlab", folder / "lib" / "grainlab")
    monkeypatch.syspath_prepend(folder / "lib")
    return folder / "lib" / "grainlab" / "configs"


@pytest.fixture
def typed(monkeypatch, capsys):
    """A function that runs a command with arguments and returns its standard error."""

    def type_words(command, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        with contextlib.suppress(SystemExit):
            command()
        return capsys.readouterr().err

    return type_words


def results(run: str) -> dict:
    return json.loads(Path("runs", run, "results.json").read_text())


def logged(run: str, name: str) -> list[float]:
    with Path("runs", run, "metrics.csv").open(newline="") as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == name]


def test_an_installed_package_trains_resumes_and_is_measured(installed, typed):
    assert metadata.version("grainlab") == "1.0"
    assert "error" not in typed(train, *GRAIN, "optim.schedule.steps=3", "name=first")
    assert results("first")["trained_steps"] == 2
    assert Path("runs/first/report.html").is_file()
    assert Path("runs/first/dynamics.png").is_file()
    assert "error" not in typed(train, "resume=runs/first", "trainer.max_steps=3")
    assert logged("first", "train/patches") == [2, 4, 6]

    # A resumed run is bit-exact; its state includes Lion's averages and the callback's count.
    assert "error" not in typed(train, *GRAIN, "trainer.max_steps=3", "optim.schedule.steps=3", "name=whole")
    whole, first = (torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "first"))
    assert all(torch.equal(whole[name], first[name]) for name in whole)

    assert "error" not in typed(benchmark, "checkpoint=runs/first", "out=out", "device=cpu", "test_sets=[cut]")
    measured = json.loads(Path("out/results.json").read_text())
    assert measured["task"] == "film_grain"
    own = results("first")["test_sets"]["cut"]["metrics"]
    assert list(own) == ["psnr_rgb", "ssim_rgb", "edge_error"]
    assert results("first")["metrics"]["edge_error"] == {"higher_is_better": False, "digits": 2, "unit": "gray levels"}
    assert measured["test_sets"]["cut"]["metrics"] == {name: own[name] for name in ("psnr_rgb", "ssim_rgb")}
    assert "error" not in typed(benchmark, "checkpoint=runs/first", "out=more", "device=cpu", "test_sets=[cut]", "+metrics=[edge_error]")
    assert json.loads(Path("more/results.json").read_text())["test_sets"]["cut"]["metrics"] == own
    assert "error" not in typed(export, "runs/first", "grain.safetensors")
    assert type(load_network("grain.safetensors")).__name__ == "GrainNet"
    refused = typed(export, "runs/first", "grain.pth", "--format", "official")
    assert refused.startswith("error: runs/first/checkpoints/best.safetensors: ")
    assert refused.count("\n") == 1


def test_names_of_an_installed_package_join_ours(installed, capsys, monkeypatch):
    assert "image_rms" in list_norms()
    assert "grainnet" in list_models()
    assert type(create_model("swinir_tiny", "image_rms").patch_embed.norm).__module__ == "grainlab.norms"
    with pytest.raises(UserError, match=r"norm=image_rm: unknown norm; known: batch, .*, image_rms, .*; did you mean image_rms\?"):
        create_model("swinir_tiny", "image_rm")
    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    entry("irformer.commands.train:train", "train")
    assert {"image_rms", "grainnet", "film_grain", "edges", "lion"} <= set(capsys.readouterr().out.split())
    assert type(create_model("swinir_tiny").patch_embed.norm).__module__ == "irformer.norms.layers"


def test_what_a_command_line_composes_is_trusted_to_its_last_line(importable, typed, monkeypatch):
    words = ["--config-dir", importable, *GRAIN, "task.degradation.strength=25", "name=mine"]
    assert "error" not in typed(train, *words)
    assert results("mine")["task_label"] == "film_grain, degradation.strength 25"
    assert "error" not in typed(train, *words, "resume=auto", "trainer.max_steps=3")
    assert results("mine")["trained_steps"] == 3

    measure = ["checkpoint=runs/mine", "out=out", "device=cpu", "test_sets=[cut]"]
    assert typed(benchmark, *measure) == f"error: runs/mine/checkpoints/best.safetensors: {REFUSED}\n"
    assert "error" not in typed(benchmark, *measure, "trust=[grainlab]")
    # With the configurations, the label names the task and its changes.
    assert "error" not in typed(benchmark, "--config-dir", importable, *measure[:1], "out=other", *measure[2:], "trust=[grainlab]")
    assert json.loads(Path("other/results.json").read_text())["task_label"] == "film_grain, degradation.strength 25"

    refused = typed(train, "resume=runs/mine", "trainer.max_steps=4")
    assert refused == (
        f"error: {Path('runs/mine/config.yaml').absolute()}: metrics.edge_error names the class grainlab.metrics.EdgeError; a saved "
        f"configuration may only name classes that irformer's configurations use, or classes of packages that you trust: {REMEDY}\n"
    )
    monkeypatch.setenv("IRFORMER_TRUST", "grainlab")
    assert "error" not in typed(train, "resume=runs/mine", "trainer.max_steps=4")
    monkeypatch.delenv("IRFORMER_TRUST")
    assert typed(export, "runs/mine", "out.safetensors") == f"error: runs/mine/checkpoints/best.safetensors: {REFUSED}\n"
    assert "error" not in typed(export, "runs/mine", "out.safetensors", "--trust", "grainlab")
    with pytest.raises(UserError, match=r"names the class grainlab\.networks\.GrainNet"):
        load_network("out.safetensors")
    assert load_network("out.safetensors", trust=["grainlab"]).in_channels == 3


def test_the_line_that_resumes_names_what_to_trust(importable, site, monkeypatch):
    def command(config_dir: Path | None, *words: str) -> str:
        return build_run(compose("train", [*words, "name=x"], config_dir), Path("runs/x")).resume_command

    assert command(None, "model=swinir_tiny", *TINY) == "python train.py resume=runs/x"
    assert command(importable, *GRAIN) == "python train.py resume=runs/x 'trust=[grainlab]'"
    monkeypatch.syspath_prepend(site)
    assert command(None, *GRAIN) == "python train.py resume=runs/x"


# Names


def test_a_name_that_exists_cannot_be_replaced(folder, typed):
    (folder / "conf" / "norm").mkdir(parents=True)
    (folder / "conf" / "norm" / "iln.yaml").write_text("name: iln\n")
    expected = f"{folder}/conf/norm/iln.yaml: irformer already has norm/iln.yaml, which cannot be replaced; rename your file"
    assert typed(train, "--config-dir", "conf", "norm=iln") == f"error: {expected}\n"
    with pytest.raises(UserError) as caught:
        compose("train", ["norm=ln"], Path("conf"))
    assert str(caught.value) == expected


def test_two_packages_cannot_offer_one_name(installed, typed):
    (installed / "conf" / "norm").mkdir(parents=True)
    (installed / "conf" / "norm" / "image_rms.yaml").write_text("name: image_rms\n")
    error = typed(train, "--config-dir=conf", "norm=iln")
    assert error.startswith(f"error: {installed}/conf/norm/image_rms.yaml: ")
    assert error.endswith("/grainlab/configs already has norm/image_rms.yaml, which cannot be replaced; rename your file\n")


def test_unknown_names_are_compared_with_those_of_the_folder(folder, typed):
    (folder / "conf" / "loss").mkdir(parents=True)
    (folder / "conf" / "loss" / "mine.yaml").write_text("_target_: torch.nn.L1Loss\n")
    error = typed(train, "--config-dir", "conf", "loss=min")
    assert error.startswith(
        "error: loss=min: unknown loss; known: charbonnier, fft, l1, l1_feature_kl, l1_fft, mine, mse, ssim; did you mean m"
    )
    assert "mine" not in options("loss")
    assert compose("train", ["loss=mine", "name=x"], Path("conf")).loss._target_ == "torch.nn.L1Loss"


def test_a_broken_entry_point_is_named(folder, monkeypatch):
    info = folder / "lib" / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[irformer.configs]\nbroken = broken.configs\n")
    monkeypatch.syspath_prepend(folder / "lib")
    with pytest.raises(UserError) as caught:
        options("norm")
    assert str(caught.value) == (
        "the installed package broken: its entry point irformer.configs names broken.configs, expected a package such as "
        "mypkg.configs with folders such as norm/; reinstall it, or pip uninstall broken"
    )


NET = """
from torch import nn

class Net(nn.Module):
    scale, in_channels = 2, 3
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
    def forward(self, x):
        return nn.functional.pixel_shuffle(self.conv(x), 2)
"""


def test_a_plain_module_trains_and_comes_back(folder, typed, monkeypatch):
    """It has no groups, size_multiple or test_padding; without groups there is no figure."""
    (folder / "scratch.py").write_text(NET)
    monkeypatch.syspath_prepend(folder)
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "model" / "net.yaml").write_text("name: net\n_target_: scratch.Net\n")
    assert "error" not in typed(train, "--config-dir", "conf", "model=net", *TINY, "name=plain")
    assert not Path("runs/plain/dynamics.png").exists()
    assert "error" not in typed(benchmark, "checkpoint=runs/plain", "out=out", "device=cpu", "test_sets=[cut]", "trust=[scratch]")
    measured = json.loads(Path("out/results.json").read_text())
    assert measured["protocol"]["padding"] == "reflect_min"
    assert measured["test_sets"]["cut"]["metrics"] == results("plain")["test_sets"]["cut"]["metrics"]


@pytest.mark.parametrize(
    ("task", "network"),
    [
        ("denoise_color_25", "{_target_: spandrel.architectures.NAFNet.NAFNet, width: 8, enc_blk_nums: [1], dec_blk_nums: [1]}"),
        (
            "sr_x2",
            "{_target_: spandrel_extra_arches.architectures.SRFormer.SRFormer, depths: [2], num_heads: [2], embed_dim: 16, window_size: 8, "
            "img_size: 16, upscale: 2, upsampler: pixelshuffledirect}",
        ),
    ],
    ids=["NAFNet", "SRFormer"],
)
def test_a_network_of_spandrel_trains_and_comes_back(folder, typed, task, network):
    package = network.split()[1].partition(".")[0]
    pytest.importorskip(package)
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "model" / "theirs.yaml").write_text(f"defaults: [external, _self_]\nname: theirs\nnetwork: {network}\n")
    assert "error" not in typed(train, "--config-dir", "conf", "model=theirs", f"task={task}", *TINY, "name=theirs")
    measure = ["checkpoint=runs/theirs", "out=out", "device=cpu", "test_sets=[cut]"]
    assert f"trust=[{package}]" in typed(benchmark, *measure)
    assert "error" not in typed(benchmark, *measure, f"trust=[{package}]")
    measured = json.loads(Path("out/results.json").read_text())
    assert measured["test_sets"]["cut"]["metrics"] == results("theirs")["test_sets"]["cut"]["metrics"]
    assert "error" not in typed(train, "resume=runs/theirs", "trainer.max_steps=3", f"trust=[{package}]")
