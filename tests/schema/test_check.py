"""Every value of a configuration is compared with its description before anything is built."""

import sys
from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import Gt
from hydra.errors import HydraException
from torch import nn

from irformer.commands.benchmark import benchmark
from irformer.commands.train import train
from irformer.config.compose import compose, options
from irformer.config.tasks import complete_tasks
from irformer.core.folders import CONFIGS
from irformer.errors import UserError
from irformer.schema.check import check_config, check_node
from irformer.schema.names import EXPECTED
from irformer.schema.reference import configuration_page

GROUPS = ("task", "norm", "model", "loss", "optim", "data", "debug", "trainer")  # recipes are checked where they are built
COUNT = "expected a whole number, 1 or more"
PATCHES = "expected a whole number from 1 to 1,000,000"
STEPS = "expected a whole number from 1 to 1,000,000,000"
TEST_SETS = "expected a list of one or more names, such as test_sets=[Set5], or null"

WRONG = {
    "norm.standardize_input=no": "norm.standardize_input=no: expected true or false",
    "norm.block.eps=-1": "norm.block.eps=-1: expected a number above 0",
    "norm.block.eps=nan": "norm.block.eps=nan: expected a number above 0",
    "norm.ends=foo": "norm.ends=foo: expected same, ln, affine or none",
    "optim.lr=inf": "optim.lr=inf: expected a number, 0 or more",
    "optim.lr=1e400": "optim.lr=inf: expected a number, 0 or more",
    "optim.lr=-1e-3": "optim.lr=-0.001: expected a number, 0 or more",
    "optim.lr=null": "optim.lr=null: expected a number, 0 or more",
    "optim.ema=2": "optim.ema=2: expected a number from 0 to below 1, or null",
    "optim.optimizer.betas=[a,b]": "optim.optimizer.betas=[a, b]: expected a list of numbers",
    "optim.optimizer.weight_decay=inf": "optim.optimizer.weight_decay=inf: expected a number",
    "+optim.optimizer.momentum=1": "unknown key optim.optimizer.momentum: Adam takes params, lr, betas",
    "optim.schedule.gamma=-1": "optim.schedule.gamma=-1: expected a number above 0",
    "optim.schedule.milestones=5": "optim.schedule.milestones=5: expected a list of whole numbers, each 0 or more",
    "model.drop_path_rate=2": "model.drop_path_rate=2: expected a number from 0 to below 1",
    "model.window_size=0": "model.window_size=0: expected a whole number from 1 to 64",
    "model.window_size=8.5": "model.window_size=8.5: expected a whole number from 1 to 64",
    "model.embed_dim=0": "model.embed_dim=0: expected a whole number from 1 to 16,384",
    "model.embed_dim=1000000000": "model.embed_dim=1000000000: expected a whole number from 1 to 16,384",
    "model.depths=[100000]": "model.depths=[100000]: expected a list of 1 to 64 whole numbers, each from 1 to 64",
    "model.depths=3": "model.depths=3: expected a list of 1 to 64 whole numbers, each from 1 to 64",
    "model.depths=[]": "model.depths=[]: expected a list of 1 to 64 whole numbers, each from 1 to 64",
    "model.mlp_ratio=1e300": "model.mlp_ratio=1e+300: expected a number above 0, up to 64",
    "model.scale=3": "model.scale=3: expected task.scale=2; choose another task",
    "model.in_channels=1": "model.in_channels=1: expected task.channels=3; choose another task",
    "model.qkv_bias=1": "model.qkv_bias=1: expected true or false",
    "model.upsampler=bicubic": "model.upsampler=bicubic: expected pixelshuffle, pixelshuffledirect, nearest+conv or empty text",
    "model._target_=nowhere.Net": "model._target_=nowhere.Net: cannot be imported (No module named 'nowhere')",
    "+model.heads=2": "unknown key model.heads: SwinIR takes norm, scale, in_channels",
    "max_batch_per_device=1.5": f"max_batch_per_device=1.5: {PATCHES}, or null",
    "data.distinct=-1": f"data.distinct=-1: {PATCHES}, or null",
    "data.workers=-1": "data.workers=-1: expected a whole number from 0 to 256, or null",
    "data.cache_gb=-1": "data.cache_gb=-1: expected a number from 0 to 65,536",
    "data.draw=random": "data.draw=random: expected images or area",
    "data.packed=maybe": "data.packed=maybe: expected true or false",
    "data.sets=[]": "data.sets=[]: expected a list of names, names with shares above 0, or null",
    "data.sets={}": "data.sets={}: expected a list of names, names with shares above 0, or null",
    "data.sets={DIV2K: -1}": "data.sets={DIV2K: -1}: expected a list of names, names with shares above 0, or null",
    "data.val=": "data.val='': expected non-empty text, or null",
    "trainer.max_steps=abc": f"trainer.max_steps=abc: {STEPS}",
    "trainer.max_steps=2.5": f"trainer.max_steps=2.5: {STEPS}",
    "trainer.max_steps=null": f"trainer.max_steps=null: {STEPS}",
    "trainer.max_steps=-1": f"trainer.max_steps=-1: {STEPS}",
    "trainer.max_steps='100'": f"trainer.max_steps='100': {STEPS}",
    "trainer.val_check_interval=0": f"trainer.val_check_interval=0: {STEPS}",
    "trainer.log_every_n_steps=0": f"trainer.log_every_n_steps=0: {STEPS}",
    "trainer.accumulate_grad_batches=0": f"trainer.accumulate_grad_batches=0: {PATCHES}",
    "trainer.accelerator=gpus": "trainer.accelerator=gpus: expected auto, cpu, gpu, cuda, mps or tpu",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val=-1: expected a number, 0 or more, or null",
    "trainer.deterministic=perhaps": "trainer.deterministic=perhaps: expected true or false or warn",
    "+trainer.max_step=5": "unknown key trainer.max_step: lightning.Trainer has no such argument; did you mean max_steps?",
    "+trainer.detect_anomaly=maybe": "trainer.detect_anomaly=maybe: expected true or false",
    "+trainer.limit_val_batches=some": "trainer.limit_val_batches=some: expected a number, or null",
    "+trainer.callbacks=[]": "trainer.callbacks cannot be set: every run sets it itself",
    "seed=-1": "seed=-1: expected a whole number from 0 to 4,294,967,295",
    "seed=4294967296": "seed=4294967296: expected a whole number from 0 to 4,294,967,295",
    "seed=null": "seed=null: expected a whole number from 0 to 4,294,967,295",
    "patch_size=1": "patch_size=1: expected a whole number from 2 to 65,536",
    "patch_size={a: 1}": "patch_size={a: 1}: expected a whole number from 2 to 65,536",
    "batch_size=true": f"batch_size=true: {PATCHES}",
    "checkpoint_every=0": f"checkpoint_every=0: {STEPS}",
    "callbacks.probe.every=0": f"callbacks.probe.every=0: {COUNT}",
    "callbacks.guard.patience=0": f"callbacks.guard.patience=0: {COUNT}",
    "callbacks.probe=off": "callbacks.probe=off: expected a _target_ class and its arguments",
    "test_sets=[]": f"test_sets=[]: {TEST_SETS}",
    "test_sets=Set5": f"test_sets=Set5: {TEST_SETS}",
    "init_from=": "init_from='': expected a run's folder, a weights file, or null",
    "mixup={bta: 1}": "unknown key mixup.bta: Mixup takes beta, identity; did you mean beta?",
    "mixup={beta: 0}": "mixup.beta=0: expected a number above 0",
    "progressive=3": "progressive=3: expected {steps: [...], patch_size: [...], batch_size: [...]} or null",
    "progressive={steps: [1], patch_size: [16], batch_size: [0]}": "progressive.batch_size=[0]: expected a list of 1 or more",
    "task.scale=0": "task.scale=0: expected a whole number from 1 to 64",
    "task.protocol.border=-1": "task.protocol.border=-1: expected a whole number, 0 or more",
    "task.protocol.metrics=[]": "task.protocol.metrics=[]: expected a list of 1 or more names",
    "loss._target_=torch.nn.NoLoss": "loss._target_=torch.nn.NoLoss: cannot be imported",
    "logger.tensorboard=2": "logger.tensorboard=2: expected true or false",
    "+optim.momentum=1": "unknown key optim.momentum",
    "+foo=1": "unknown key foo",
}


@pytest.fixture
def one_line(tmp_path, monkeypatch, capsys):
    """Type words after a command, in this process; returns the line on stderr after checking that nothing was left behind."""

    def type_words(command, *words: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [command.__name__, *words])
        with pytest.raises(SystemExit) as exit_:
            command()
        captured = capsys.readouterr()
        assert exit_.value.code == 1
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        left = {path.name for path in tmp_path.rglob("*")}
        assert left <= {"runs", "benchmark"}, "a failed start leaves no folder of its own"
        return lines[0]

    return type_words


@pytest.mark.parametrize(("word", "line"), WRONG.items(), ids=WRONG)
def test_a_wrong_value_is_reported_by_its_key(word, line, attempts):
    with pytest.raises(UserError) as error:
        check_config(compose("train", [word]), "train")
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
    attempts.refused("configuration values")


@pytest.mark.parametrize("word", ["optim.lr=inf", "norm.standardize_input=no", "trainer.max_steps=abc", "test_sets=[]", "init_from="])
def test_the_command_reports_it_in_one_line(word, one_line, attempts):
    assert one_line(train, word) == f"error: {WRONG[word]}"
    attempts.refused("configuration values")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["checkpoint=bicubic", "test_sets=[]"], f"error: test_sets=[]: {TEST_SETS}"),
        (["checkpoint=bicubic", "test_sets=Set5"], f"error: test_sets=Set5: {TEST_SETS}"),
        (["checkpoint=bicubic", "device="], "error: device='': expected non-empty text"),
        (["checkpoint=bicubic", "task.protocol.border=-2"], "error: task.protocol.border=-2: expected a whole number, 0 or more"),
        (["checkpoint="], "error: checkpoint='': expected a path, bicubic or degraded, a list of them, or labels with paths"),
        (["checkpoint=bicubic", "+foo=1"], "error: unknown key foo"),
    ],
    ids=str,
)
def test_benchmark_checks_its_keys_too(words, line, one_line, attempts):
    assert one_line(benchmark, *words).startswith(line)
    attempts.refused("configuration values")


def test_further_wrong_keys_are_listed():
    with pytest.raises(UserError, match=r"^seed=-1: expected .* \(also wrong: batch_size, optim.lr\)$"):
        check_config(compose("train", ["seed=-1", "batch_size=0", "optim.lr=-1"]), "train")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/tmp/x", "a\\b", ".hidden", "-m", "a\tb", "x" * 201, " x"], ids=repr)
def test_a_run_cannot_leave_its_folder_by_its_name(name, one_line, attempts):
    quoted = '"' + name.replace("\\", "\\\\") + '"'
    line = one_line(train, f"name={quoted}", "model=swinir_tiny")
    assert line.startswith("error: name=")
    assert line.endswith(f": expected {EXPECTED}")
    attempts.refused("configuration values")
    assert one_line(train, f"sweep={quoted}").endswith(f": expected {EXPECTED}")
    attempts.refused("configuration values")


@pytest.mark.parametrize(
    "words",
    [
        *(
            [f"{group}={word}", *(["model.network._target_=torch.nn.Identity"] if word == "external" else [])]
            for group in ("norm", "model", "loss", "optim", "data", "debug")
            for word in options(group)
            if word[0] != "_"
        ),
        *([f"task={word}"] for word in complete_tasks()),
        ["task=denoise_color", "task.sigma=35.5"],
        ["task=jpeg_gray", "task.quality=15"],
        ["task=pairs", "task.scale=1"],
        ["optim/schedule=cosine"],
        ["logger=wandb"],
        [
            "name=1",
            "+trainer.detect_anomaly=true",
            "+trainer.max_time=00:01:00:00",
            "callbacks.probe=null",
            "data.sets={DIV2K: 1, WED: 0.5}",
            "trainer.devices=[0,1]",
        ],
    ],
    ids=str,
)
def test_what_the_configs_say_is_right(words):
    """No description is narrower than the configurations that come with irformer."""
    check_config(compose("train", words), "train")


class Block(nn.Module):
    """A block of somebody else.

    Args:
        dim: channels.
        strength: of the block.
    """

    def __init__(self, dim: int, strength: Annotated[float, Gt(0)] = 1.0) -> None:
        super().__init__()


def test_classes_of_other_packages_are_checked_by_their_own_types(attempts):
    here = f"{__name__}.Block"
    check_node("block", {"_target_": here, "dim": 3})
    attempts.handled("configuration values")
    for node, line in [
        ({"_target_": here, "dim": 3, "strength": -1}, "block.strength=-1: expected a number above 0"),
        ({"_target_": here, "dim": "wide"}, "block.dim=wide: expected a whole number"),
        ({"_target_": here}, "block.dim is missing: expected a whole number"),
        ({"_target_": here, "dim": 3, "power": 1}, "unknown key block.power: Block takes dim, strength"),
    ]:
        with pytest.raises(UserError, match=f"^{line}"):
            check_node("block", node)
        attempts.refused("configuration values")


def test_the_page_of_keys_is_up_to_date():
    page = Path(__file__).parents[2] / "docs/configuration.md"
    assert page.read_text(encoding="utf-8") == configuration_page(CONFIGS), "run make configuration"


def test_unknown_keys_are_refused_by_hydra_already(attempts):
    with pytest.raises(HydraException):
        compose("train", ["optim.lrr=1"])
    attempts.refused("configuration values")
