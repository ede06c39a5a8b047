"""What files and foreign run folders may name: nothing is imported or run that the user has not named as trusted."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from hostile import PROOF, model, norm, weights
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from safetensors.torch import save_file

from irformer import load_network
from irformer.commands.benchmark import benchmark
from irformer.commands.export import export
from irformer.commands.train import train
from irformer.config.compose import compose, options, trust_of
from irformer.config.saved import read_saved_config
from irformer.config.tasks import complete_tasks
from irformer.core.folders import CONFIGS
from irformer.core.trust import Trust, targets
from irformer.errors import UserError
from irformer.tasks.task import Task
from irformer.training.build import build_run
from irformer.training.resuming import find_resume
from irformer.weights.building import build
from irformer.weights.checkpoints import load_checkpoint

PACKAGE = """
from pathlib import Path
from torch import nn
from torch.nn import MSELoss
from irformer.norms import LayerNorm
Path("imported").touch()

class Norm(LayerNorm):
    pass

class Loss(nn.L1Loss):
    pass

def make_loss():
    return Loss()
"""
TINY = ["model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", "debug=fast", "trainer=cpu", "logger=csv"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A current folder with a package theirpkg that creates a file when it is imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirpkg").mkdir()
    (tmp_path / "theirpkg" / "__init__.py").write_text(PACKAGE)
    (tmp_path / "theirpkg" / "part.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirpkg"]:
        del sys.modules[name]


@pytest.fixture
def foreign(folder) -> Path:
    """A weights file whose norm is from theirpkg."""
    file = folder / "theirs.safetensors"
    save_file(weights(), file, {"irformer": json.dumps({"model": model(norm=norm("theirpkg.part.Norm")), "task": "sr_x2", "step": 1})})
    return file


REFUSED = (
    "names the class theirpkg.part.Norm; a file may only name irformer's networks and norms, or classes of packages that you trust: "
    "trust=[theirpkg], --trust theirpkg or IRFORMER_TRUST=theirpkg, only for a file from a known source; "
    "installed packages with the entry point irformer.configs are trusted"
)


def test_a_foreign_class_is_refused_before_its_package_is_imported(foreign, attempts):
    with pytest.raises(UserError) as caught:
        load_network(foreign)
    assert str(caught.value) == f"{foreign}: {REFUSED}"
    assert not Path("imported").exists()
    attempts.refused("weights files")


def test_a_trusted_package_covers_its_modules(foreign, monkeypatch, attempts):
    assert type(load_network(foreign, trust=["theirpkg"]).patch_embed.norm).__module__ == "theirpkg.part"
    monkeypatch.setenv("IRFORMER_TRUST", "other, theirpkg")
    assert type(load_network(foreign).patch_embed.norm).__name__ == "Norm"
    attempts.handled("weights files")


@pytest.mark.parametrize("package", ["theirpk", "theirpkg.par", "theirpkg.part.Norm", "part"])
def test_a_package_is_trusted_by_its_whole_name(foreign, package, attempts):
    with pytest.raises(UserError, match=r"names the class theirpkg\.part\.Norm"):
        load_network(foreign, trust=[package])
    assert not Path("imported").exists()
    attempts.refused("weights files")


@pytest.mark.parametrize("target", ["theirpkg.MSELoss", "theirpkg.Path", "theirpkg.part.nn.Linear", "theirpkg.nothing", "theirpkg.part"])
def test_what_a_trusted_package_imports_is_not_trusted(folder, target):
    with pytest.raises(UserError, match=r"names the class theirpkg\.\w+; .* trust=\[\w+\]|no such class|expected a class, found a module"):
        Trust(["theirpkg"]).find(target, "run")


def test_a_trusted_package_may_offer_functions(folder):
    assert type(build({"_target_": "theirpkg.make_loss"}, Trust(["theirpkg"]), "run")).__name__ == "Loss"


@pytest.mark.parametrize("packages", [[""], ["a b"], ["."], ["mypkg."], [3], "mypkg"])
def test_what_is_no_package_is_refused(packages):
    with pytest.raises(UserError, match="trust="):
        Trust(packages)


@pytest.mark.parametrize(
    "target",
    [
        "irformer.models.torch.load",
        "irformer.models.swinir.nn.Linear",
        "irformer.norms.Tensor",
        "irformer.norms.residual",
        "irformer.norms._PerChannel.forward",
        "irformer.models.hat",
        "irformer.models.nothing.Network",
        "irformer.modelsx.Network",
        "torch.optim.adam.torch.load",
        "torch.optim.Tensor",
        "lightning.pytorch.callbacks.LambdaCallback",
        "irformer.training.metrics_csv.MetricsCsv",
        "torch.nn.Module",
        "builtins.eval",
        "os.system",
        "hydra.utils.get_object",
    ],
)
def test_only_classes_of_the_set_are_found(target):
    with pytest.raises(UserError, match=f"names the class {target}; a saved configuration may only name"):
        Trust().find(target, "run")


def test_the_set_holds_everything_that_the_configurations_name():
    groups = [path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name not in ("launcher", "sweeper")]
    named = set()
    for file in (file for group in groups for file in (CONFIGS / group).rglob("*.yaml")):
        named |= set(targets(OmegaConf.to_container(OmegaConf.load(file), resolve=False)))
    assert {"irformer.models.SwinIR", "irformer.training.losses.SSIM", "lightning.Trainer", "torch.optim.AdamW"} <= named
    for target in sorted(named - {"???"}):  # the network of model=external
        assert isinstance(Trust().find(target, "run"), type)


@pytest.mark.parametrize("name", complete_tasks())
def test_a_task_in_a_record_can_be_built(name):
    config = OmegaConf.to_container(compose("train", [f"task={name}"]).task, resolve=True)
    task = build(json.loads(json.dumps(config)), Trust(), "task")
    assert isinstance(task, Task)
    assert task.name == name


def test_a_benchmark_takes_trust(foreign, monkeypatch, capsys):
    words = [f"checkpoint='{foreign}'", "out=out", "device=cpu", "test_sets=[sample]"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words])
    with pytest.raises(SystemExit):
        benchmark()
    assert capsys.readouterr().err == f"error: {foreign}: {REFUSED}\n"
    assert not Path("imported").exists()
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, "trust=[theirpkg]"])
    benchmark()
    assert Path("out/results.json").is_file()


def test_an_export_takes_trust(foreign, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export.py", str(foreign), "out.safetensors"])
    with pytest.raises(SystemExit):
        export()
    assert capsys.readouterr().err == f"error: {foreign}: {REFUSED}\n"
    assert not Path("out.safetensors").exists()
    monkeypatch.setattr(sys, "argv", ["export.py", str(foreign), "out.safetensors", "--trust", "theirpkg"])
    export()
    assert type(load_network("out.safetensors", trust=["theirpkg"]).patch_embed.norm).__name__ == "Norm"


def test_training_from_a_file_takes_trust(foreign, monkeypatch, capsys):
    words = [*TINY, "data=sample", "trainer.max_steps=1", f"init_from='{foreign}'", "name=tuned"]
    assert type_words(monkeypatch, capsys, *words) == f"error: init_from={foreign}: {REFUSED}\n"
    assert not Path("imported").exists()
    assert "error" not in type_words(monkeypatch, capsys, *words, "trust=[theirpkg]")


def test_a_change_may_name_any_class(folder):
    """The user's overrides are trusted, the file is not."""
    file = folder / "ours.safetensors"
    save_file(weights(), file, {"irformer": json.dumps({"model": model(), "task": "sr_x2", "step": 1})})
    network = load_checkpoint(file, {"norm.block._target_": "theirpkg.Norm"}).network
    assert type(network.patch_embed.norm).__name__ == "Norm"


# Run folders


@pytest.fixture
def run_folder(folder) -> Path:
    """A run of one step, without the benchmark."""
    run = build_run(
        compose("train", [*TINY, "test_sets=[sample]", "data=sample", "trainer.max_steps=1", "name=theirs"]), folder / "runs" / "theirs"
    )
    run.execute(Console(quiet=True))
    return folder / "runs" / "theirs"


def type_words(monkeypatch, capsys, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with contextlib.suppress(SystemExit):
        train()
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def saved_text() -> str:
    return OmegaConf.to_yaml(compose("train", [*TINY, "data=sample", "name=theirs"]))


_SAVE = "${oc.create:{_target_:numpy.savetxt,fname:ran-code,X:[1]}}"

# YAML lines that replace a part of config.yaml, and the expected error.
HOSTILE = {
    "loss": ({"loss": {"_target_": "theirpkg.Loss"}}, "loss names the class theirpkg.Loss; a saved configuration may only name classes"),
    "function": ({"loss": {"_target_": "os.mkdir", "path": PROOF}}, "loss names the class os.mkdir;"),
    "callback": ({"callbacks": {"a": {"_target_": "os.mkdir", "path": PROOF}}}, "callbacks.a names the class os.mkdir;"),
    "deep": ({"trainer": {"plugins": [{"a": {"_target_": "os.mkdir"}}]}}, "trainer.plugins.0.a names the class os.mkdir;"),
    "strategy": ({"trainer": {"strategy": {"_target_": "theirpkg.Strategy"}}}, "trainer.strategy names the class theirpkg.Strategy"),
    "profiler": ({"trainer": {"profiler": {"_target_": "theirpkg.Profiler"}}}, "trainer.profiler names the class theirpkg.Profiler"),
    "interpolation": ({"loss": _SAVE}, "loss=${oc.create:{_target_:numpy.savetxt"),
    "hidden interpolation": ({"name": "${oc.select:seed,${oc.create:{a:1}}}"}, "oc.create is not allowed"),
    "resolver by reference": ({"name": "${oc.${paths.runs}:1}"}, "oc.${paths.runs} is not allowed"),
    "resolver of Hydra": ({"name": "${hydra:run.dir}"}, "hydra is not allowed"),
    "decoded": ({"name": "${oc.decode:'${oc.create:{}}'}"}, "oc.decode is not allowed"),
    "target by reference": ({"name": "os.mkdir", "loss": {"_target_": "${name}"}}, "loss._target_=${name}: expected str, not a reference"),
    "target that is a list": ({"loss": {"_target_": ["os.mkdir"]}}, "loss._target_=a list: expected str"),
    "unknown special key": ({"loss": {"_target_": "torch.nn.L1Loss", "_method_": "x"}}, "loss._method_: unknown key"),
    "partial by reference": ({"loss": {"_target_": "torch.nn.L1Loss", "_partial_": "${seed}"}}, "loss._partial_=${seed}: expected bool"),
    "arguments": (
        {"loss": {"_target_": "torch.nn.L1Loss", "_args_": [{"_target_": "os.mkdir"}]}},
        "loss._args_.0 names the class os.mkdir",
    ),
    "settings of wandb": (
        {"logger": {"wandb": {"_target_": "lightning.pytorch.loggers.WandbLogger", "settings": {"x_executable": "/bin/sh"}}}},
        "logger.wandb passes settings to lightning.pytorch.loggers.WandbLogger; known: entity, ",
    ),
    "itself": ({"name": "${name}"}, "name refers to itself"),
    "each other": ({"name": "${a}", "a": "${name}"}, "refers to itself"),
    "reference bomb": (
        {f"a{i}": f"${{a{i + 1}}}${{a{i + 1}}}" for i in range(40)} | {"a40": "x"},
        "has references that expand too far",
    ),
    "list bomb": ({f"a{i}": 9 * [f"${{a{i + 1}}}"] for i in range(9)} | {"a9": "x"}, "has references that expand too far"),
    "selected bomb": (
        {f"a{i}": 2 * f"${{oc.select:a{i + 1}}}" for i in range(40)} | {"a40": "x"},
        "has references that expand too far",
    ),
    "many references": ({"name": 17 * "${seed}"}, "name: more than 16 references in one value"),
    "broken reference": ({"name": "${seed"}, "cannot be read"),
    "part that is missing": ({"data": None}, "lacks data; expected the saved configuration of a run"),
    "Hydra's own node": ({"hydra": {"callbacks": {"a": {"_target_": "os.mkdir"}}}}, "hydra.callbacks.a names the class os.mkdir"),
}
_TEXTS = {
    "tag": ("loss: !!python/object/apply:os.mkdir [ran-code]", "line 1: the tag tag:yaml.org,2002:python/object/apply:os.mkdir"),
    "alias bomb": ("a: &a [1]\nb: *a", "line 1: an alias or anchor; expected plain YAML without references"),
    "deep YAML": ("a: " + 5000 * "[", "more than 32 levels or 20,000 values"),
    "many values": ("a: [" + 30_000 * "1," + "]", "more than 32 levels or 20,000 values"),
    "long text": ("a: " + 5000 * "x", "a text of more than 4,096 characters"),
    "large file": ("a: " + 2**21 * "x", "larger than 1,048,576 bytes"),
    "no YAML": ("a: [", "cannot be read ("),
    "two documents": ("a: 1\n---\nb: 1", "cannot be read ("),
    "no text": ("\x00\x01", "cannot be read ("),
    "list": ("[1, 2]", "expected the saved configuration of a run, found no mapping"),
    "number": ("3", "expected the saved configuration of a run, found no mapping"),
    "empty": ("", "it is empty"),
    "twice": ("a: 1\na: 2", "cannot be read ("),
}


def hostile_text(saved: str, changes: dict) -> str:
    config = OmegaConf.to_container(OmegaConf.create(saved), resolve=False)
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and isinstance(config.get(key), dict) else value
    config["loss"] = changes.get("loss", config["loss"])
    return json.dumps(config)  # JSON is valid YAML and preserves every string


def refusal_of_resuming(folder: Path, monkeypatch, capsys, text: str) -> str:
    theirs = folder / "runs" / "theirs"
    theirs.mkdir(parents=True)
    (theirs / "config.yaml").write_text(text)
    started = time.monotonic()
    error = type_words(monkeypatch, capsys, "resume=runs/theirs")
    assert error.startswith("error: ")
    assert str(Path("runs/theirs/config.yaml")) in error
    assert error.count("\n") == 1
    assert time.monotonic() - started < 20
    assert {path.name for path in folder.iterdir()} == {"theirpkg", "runs"}
    assert [path.name for path in theirs.iterdir()] == ["config.yaml"]
    return error


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_run_folder_cannot_run_code(folder, saved_text, monkeypatch, capsys, kind, attempts):
    changes, expected = HOSTILE[kind]
    assert expected in refusal_of_resuming(folder, monkeypatch, capsys, hostile_text(saved_text, changes))
    attempts.refused("run folders")


@pytest.mark.parametrize("kind", _TEXTS)
def test_a_configuration_is_plain_yaml(folder, monkeypatch, capsys, kind, attempts):
    text, expected = _TEXTS[kind]
    assert expected in refusal_of_resuming(folder, monkeypatch, capsys, text)
    attempts.refused("run folders")


def accepted(cfg: DictConfig) -> None:
    Path("config.yaml").write_text(OmegaConf.to_yaml(cfg))
    saved = read_saved_config(Path("config.yaml"), trust_of(cfg), whole=True)
    assert OmegaConf.to_yaml(saved) == OmegaConf.to_yaml(cfg)


@pytest.mark.parametrize("group", ["norm", "model", "loss", "optim", "debug", "logger", "trainer"])
def test_every_configuration_of_ours_is_accepted(folder, group):
    """Every configuration that composes can be read back from a run's folder."""
    for name in options(group):
        if not name.startswith("_"):
            network = ["model.network._target_=torch.nn.Identity"] if name == "external" else []
            accepted(compose("train", ["name=x", f"{group}={name}", *network]))


def test_references_of_every_kind_are_accepted(folder):
    cfg = compose("train", ["name=x"])
    own = {"a": "${task.scale}", "b": "${oc.select:task.name,x}", "c": {"x": 1, "y": "${.x}", "z": "${..a}"}, "d": "${task.${e}}"}
    own |= {"e": "scale", "f": "${d}${c.y}", "g": "${norm.block.eps}", "h": "${trainer[max_steps]}", "i": "\\${escaped}"}
    OmegaConf.set_struct(cfg, False)
    accepted(OmegaConf.merge(cfg, own))


def test_a_run_with_a_foreign_class_goes_on_where_its_package_is_trusted(folder, monkeypatch, capsys, attempts):
    words = [*TINY, "data=sample", "norm.block._target_=theirpkg.Norm", "loss._target_=theirpkg.Loss", "name=mine"]
    assert "error" not in type_words(monkeypatch, capsys, *words)
    assert (folder / "runs" / "mine" / "results.json").is_file()  # the run's weights name the class too
    refused = type_words(monkeypatch, capsys, "resume=runs/mine", "trainer.max_steps=3")
    assert "names the class theirpkg." in refused
    assert "trust=[theirpkg]" in refused
    attempts.refused("run folders")
    assert "error" not in type_words(monkeypatch, capsys, "resume=runs/mine", "trainer.max_steps=3", "trust=[theirpkg]")
    assert json.loads((folder / "runs" / "mine" / "results.json").read_text())["trained_steps"] == 3
    attempts.handled("run folders")


def test_a_run_folder_cannot_trust_its_own_package(folder, saved_text, monkeypatch, capsys, attempts):
    text = hostile_text(saved_text, {"trust": ["theirpkg"], "loss": {"_target_": "theirpkg.Loss"}})
    assert "loss names the class theirpkg.Loss" in refusal_of_resuming(folder, monkeypatch, capsys, text)
    assert not (folder / "imported").exists()
    attempts.refused("run folders")


def test_a_run_that_is_found_by_itself_is_checked_too(folder, saved_text, monkeypatch, capsys, attempts):
    """resume=auto compares all runs with the command line: one that would run code is skipped by name, and is never resolved."""
    theirs = folder / "runs" / "theirs"
    theirs.mkdir(parents=True)
    (theirs / "config.yaml").write_text(hostile_text(saved_text, {"loss": _SAVE}))
    error = type_words(monkeypatch, capsys, *TINY, "data=sample", "resume=auto")
    assert "resume=auto: skipped runs/theirs: " in error
    assert "oc.create is not allowed" in error
    assert not (folder / PROOF).exists()
    attempts.refused("run folders")


def test_a_checkpoint_of_a_run_is_data(run_folder, attempts):
    """Checkpoints are read without running code, and their values are checked."""
    last = run_folder / "checkpoints" / "last.ckpt"
    (run_folder / "checkpoints" / "previous.ckpt").unlink(missing_ok=True)
    whole = torch.load(last, weights_only=True)
    assert find_resume(run_folder).step == 1

    class RunsCode:
        def __reduce__(self):
            return os.mkdir, (PROOF,)

    state = whole["irformer_resume"]
    hostile = {
        "refused, because reading it would run code (": whole | {"callbacks": RunsCode()},
        "not a checkpoint of a run": whole | {"irformer_resume": [1]},
        "its step, its due validation or the sizes": whole | {"irformer_resume": state | {"sizes": {"metrics.csv": -1}}},
        "the sizes of its logs cannot be read)": whole | {"global_step": "1"},
    }
    for expected, content in hostile.items():
        torch.save(content, last)
        with pytest.raises(UserError) as caught:
            find_resume(run_folder)
        message = str(caught.value)
        assert f"{os.path.relpath(last)} is damaged (" in message
        assert expected in message
        assert "\n" not in message
        assert "weights_only" not in message
        attempts.refused("run folders")
    assert not Path(PROOF).exists()
