"""Folders of a sweep: names need no quotes, and existing runs are found again when the sweep is extended."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from test_sweeps import QUICK, finish, refusal, type_here
from test_sweeps import place as place

from irformer.commands.benchmark import benchmark
from irformer.runs.sweep_folders import Job, find_job_folder, shared_keys

AREA = "runs and sweeps"
FRONT = ("sr_x2", "swinir", "ln", 0)


@pytest.mark.parametrize(
    ("overrides", "shared", "name"),
    [
        (["norm=ln", "seed=0", "trainer=ddp", "trainer.devices=8", "paths.data=/d"], [], "sr_x2-swinir-ln-s0"),
        (["optim.lr=0.0001", "batch_size=4"], ["batch_size"], "sr_x2-swinir-ln-s0-lr1e-4"),
        (["optim.lr=1e-4"], [], "sr_x2-swinir-ln-s0-lr1e-4"),
        (["optim.lr=0.5"], [], "sr_x2-swinir-ln-s0-lr0.5"),
        (["optim.lr=2.5e-05"], [], "sr_x2-swinir-ln-s0-lr2.5e-5"),
        (["model.window_size=-8", "trainer.max_steps=500000"], [], "sr_x2-swinir-ln-s0-window_size-8-max_steps500000"),
        (["loss=charbonnier", "optim.ema=null"], [], "sr_x2-swinir-ln-s0-loss_charbonnier-ema_null"),
        (["b=[1, 2]", "+a=x/y", "data.path='my photos'"], [], "sr_x2-swinir-ln-s0-a_x_y-b1_2-path_my_photos"),
        (["a.lr=1", "b.lr=2"], [], "sr_x2-swinir-ln-s0-a.lr1-b.lr2"),
        (["data.path=фото/ü"], [], "sr_x2-swinir-ln-s0-path_"),
    ],
    ids=str,
)
def test_a_name_says_what_sets_a_run_apart(overrides, shared, name, attempts):
    assert Job(*FRONT, overrides).name(shared) == name
    assert Job(*FRONT, overrides[::-1]).name(shared) == name
    attempts.handled(AREA)


def test_long_names_end_in_a_checksum():
    long = [Job(*FRONT, [f"data.path={'x' * 300}{end}"]).name() for end in "ab"]
    assert [len(name) for name in long] == [160, 160]
    assert long[0] != long[1]


@given(key=st.from_regex(r"[a-z_]+(\.[a-z_]+)?", fullmatch=True), value=st.text(max_size=12), seed=st.integers(-5, 2**31))
@settings(max_examples=200, deadline=None)
def test_every_name_passes_a_shell_and_hydra_unquoted(key, value, seed):
    name = Job("sr_x2", "swinir", "ln", seed, [f"{key}={value}"]).name()
    assert shlex.quote(name) == name
    assert OverridesParser.create().parse_override(f"resume=runs/s/{name}").value() == f"runs/s/{name}"


def test_keys_with_one_value_in_the_whole_sweep_are_shared():
    words = ["norm=ln,iln", "optim.lr=1e-4", "seed=range(3)", "+a.b=choice(1,2)", "+c=[1,2]", "model.depths=[1],[2]", "~callbacks.probe"]
    assert shared_keys(words) == ["optim.lr", "c", "~callbacks.probe"]


def hold_run(sweep: Path, name: str, **config: object) -> None:
    (sweep / name).mkdir(parents=True)
    OmegaConf.save(OmegaConf.create({"name": name, "sweep": "s", **config}), sweep / name / "config.yaml")
    (sweep / name / "results.json").write_text("{}")


def test_a_run_is_found_by_its_configuration(tmp_path, attempts):
    def found(*overrides: str, shared: tuple[str, ...] = (), **config: object) -> str:
        return find_job_folder(tmp_path / "s", Job(*FRONT, overrides), shared, lambda: {"seed": 0, **config})

    short = "sr_x2-swinir-ln-s0"
    assert found(lr=0.1) == short, "the sweep does not exist yet"
    hold_run(tmp_path / "s", short, seed=0, lr=0.1)
    assert found("lr=0.1", shared=("lr",), lr=0.1) == short
    assert found("lr=0.1", lr=0.1) == short, "the sweep was extended by the key lr"
    assert found("lr=0.2", lr=0.2) == f"{short}-lr0.2"
    assert found("lr=0.3", shared=("lr",), lr=0.3) == f"{short}-lr0.3", "its own override accounts for the difference"
    assert found(lr=0.3) == short, "refused there"
    hold_run(tmp_path / "s", f"{short}-lr=0.4", seed=0, lr=0.4)
    assert found("lr=0.4", lr=0.4) == f"{short}-lr=0.4", "the name in irformer 0.1"
    assert found("lr=0.4", shared=("lr",), lr=0.5) == f"{short}-lr=0.4", "refused there"
    (tmp_path / "s" / short / "config.yaml").write_text("{")
    assert found("lr=0.1", lr=0.1) == f"{short}-lr0.1", "a configuration that cannot be read matches no run"
    for _ in range(8):
        attempts.handled(AREA)


def pasted(line: str, folder: Path) -> list[str]:
    """Split a line into words as a shell does."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split("\0")[:-1]


def test_folders_of_a_sweep_can_be_pasted_back(place, monkeypatch, capsys, attempts):
    """The folders in the sweep's output work after checkpoint=, resume= and init_from= without quotes."""
    words = ["-m", "optim.lr=1e-4,2e-3", "norm=iln", *QUICK, "trainer.max_steps=2", "sweep=s", "~callbacks.images"]
    printed = finish(place, "out", *words)
    folders = sorted(re.findall(r"wrote (runs/s/\S+)/results\.json", printed))
    assert folders == ["runs/s/sr_x2-swinir_tiny-iln-s0-lr1e-4", "runs/s/sr_x2-swinir_tiny-iln-s0-lr2e-3"]
    for folder in folders:
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *pasted(f"checkpoint={folder}", place), "test_sets=[val]", "device=cpu"])
        benchmark()
        assert "bicubic" not in capsys.readouterr().out
        attempts.handled(AREA)

    type_here(monkeypatch, place, *pasted(f"resume={folders[0]} trainer.max_steps=3", place))
    assert "from step 2" in capsys.readouterr().out
    type_here(monkeypatch, place, *QUICK, "norm=iln", "trainer.max_steps=1", "name=next", *pasted(f"init_from={folders[1]}", place))
    assert f"{folders[1]}/checkpoints/best.safetensors, weights of swinir_tiny" in capsys.readouterr().out
    for _ in range(2):
        attempts.handled(AREA)


@pytest.mark.slow
def test_a_sweep_grows_by_a_key_and_by_another_shared_value(place, monkeypatch, capsys, attempts):
    words = ["norm=iln", *QUICK, "trainer.max_steps=1", "sweep=s"]
    first = "runs/s/sr_x2-swinir_tiny-iln-s0"
    type_here(monkeypatch, place, "-m", *words)
    assert f"wrote {first}/results.json" in capsys.readouterr().out

    type_here(monkeypatch, place, "-m", *words, "optim.lr=2e-4,1e-3")  # the recipe's default, and another value
    printed = capsys.readouterr().out
    assert f"complete: {first}\n" in printed
    assert f"wrote {first}-lr1e-3/results.json" in printed
    type_here(monkeypatch, place, "-m", *words, "optim.lr=3e-3")
    assert f"wrote {first}-lr3e-3/results.json" in capsys.readouterr().out
    type_here(monkeypatch, place, "-m", *words, "optim.lr=3e-3")
    assert f"complete: {first}-lr3e-3\n" in capsys.readouterr().out
    type_here(monkeypatch, place, *words, "optim.lr=1e-3")  # a single run
    assert f"complete: {first}-lr1e-3\n" in capsys.readouterr().out
    for _ in range(4):
        attempts.handled(AREA)

    config = place / first / "config.yaml"
    config.write_text(config.read_text().replace("beta", "betta").replace("window_size: 8", "window_size: 4"))
    err = refusal(monkeypatch, capsys, place, "-m", *words)
    assert f"{first} contains a run with another configuration: " in err
    attempts.refused(AREA)


def test_a_sweep_of_irformer_0_1_is_found_by_its_old_names(place, monkeypatch, capsys, attempts):
    words = ["norm=iln", *QUICK, "trainer.max_steps=1", "sweep=s"]
    type_here(monkeypatch, place, "-m", *words)
    (folder,) = (path.parent for path in (place / "runs" / "s").glob("*/results.json"))
    old = folder.with_name(Job("sr_x2", "swinir_tiny", "iln", 0, words).old_name())
    assert "=" in old.name
    folder.rename(old)
    capsys.readouterr()
    type_here(monkeypatch, place, "-m", *words)
    assert f"complete: runs/s/{old.name}\n" in capsys.readouterr().out
    attempts.handled(AREA)
