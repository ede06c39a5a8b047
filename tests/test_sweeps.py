"""Sweeps that are killed, repeated, extended and refused, in real processes."""

import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from conftest import picture

from irformer.commands.train import train
from irformer.imaging.images import write_image

TINY = ["model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", "debug=fast", "trainer=cpu", "logger=csv"]
QUICK = [*TINY, "data.val=val", "test_sets=[val]", "trainer.val_check_interval=4"]

# Processes are forked from a server that has imported everything and started no threads.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["irformer.commands.train", "lightning.pytorch", "tensorboard"])


def _type(folder: Path, out: Path, words: tuple[str, ...]) -> None:
    os.chdir(folder)
    with out.open("w", buffering=1) as opened:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(opened.fileno(), stream.fileno())
    sys.argv = [str(Path(__file__).parent.parent / "train.py"), *words]
    train()


def start(folder: Path, out: str, *words: str) -> BaseProcess:
    """Start train.py in a separate process that writes its output to a file."""
    process = _context.Process(target=_type, args=(folder, folder / out, words))
    process.start()
    return process


def finish(folder: Path, out: str, *words: str, status: int = 0) -> str:
    """Run train.py in a separate process until it exits, and return its output."""
    process = start(folder, out, *words)
    process.join(240)
    printed = (folder / out).read_text()
    assert process.exitcode == status, printed
    return printed


def type_here(monkeypatch, folder: Path, *words: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    train()


def refusal(monkeypatch, capsys, folder: Path, *words: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        type_here(monkeypatch, folder, *words)
    assert exit_.value.code == 1
    return capsys.readouterr().err


@pytest.fixture
def place(tmp_path):
    """An empty folder with two small validation images."""
    (tmp_path / "val").mkdir()
    for i in range(2):
        write_image(tmp_path / "val" / f"{i}.png", picture(40, 48, seed=i))
    return tmp_path


def test_a_killed_sweep_goes_on_and_grows(place, monkeypatch, capsys):
    """After SIGKILL in the second run, the same command with another seed skips the first run, resumes the second and starts the rest."""
    words = ["-m", "norm=ln,iln", *QUICK, "trainer.max_steps=12", "sweep=s", "checkpoint_every=1"]
    process = start(place, "first.out", *words)
    sweep = place / "runs" / "s"
    deadline = time.monotonic() + 200
    while not list(sweep.glob("*-iln-s0*/checkpoints/last.ckpt")):
        assert process.is_alive(), (place / "first.out").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    folders = {norm: next(sweep.glob(f"*-{norm}-s0*")) for norm in ("ln", "iln")}
    assert not (folders["iln"] / "results.json").exists(), "killed too late: the run was finished"
    before = (folders["ln"] / "results.json").stat().st_mtime_ns

    printed = finish(place, "again.out", *words, "seed=0,1")
    assert f"complete: runs/s/{folders['ln'].name}\n" in printed
    assert f"resumed: runs/s/{folders['iln'].name}\n" in printed
    assert printed.count("from step ") == 1
    assert (folders["ln"] / "results.json").stat().st_mtime_ns == before
    assert len(list(sweep.glob("*/results.json"))) == 4
    table = (sweep / "table.md").read_text()
    for cell in ("| norm=ln | mean of seeds 0, 1 |", "| norm=iln | mean of seeds 0, 1 |", *(folder.name for folder in folders.values())):
        assert cell in table
    assert "mean of seeds 0, 1" in printed

    # A single run of the sweep is skipped too. A run whose configuration was changed is refused by name, and the others continue.
    type_here(monkeypatch, place, "norm=ln", *QUICK, "trainer.max_steps=12", "sweep=s", "checkpoint_every=1")
    assert f"complete: runs/s/{folders['ln'].name}\n" in capsys.readouterr().out
    config = folders["ln"] / "config.yaml"
    config.write_text(config.read_text().replace("  lr: 0.0002", "  lr: 0.5"))
    with pytest.raises(SystemExit) as exit_:
        type_here(monkeypatch, place, *words)
    captured = capsys.readouterr()
    assert exit_.value.code == 1
    assert f"complete: runs/s/{folders['iln'].name}\n" in captured.out
    line = f"error: runs/s/{folders['ln'].name} contains a run with another configuration: optim.lr is 0.5 there and 0.0002 here; sweep="
    assert line in captured.err


@pytest.mark.slow
def test_a_run_of_two_processes_in_a_sweep_gets_processes_of_its_own(place):
    """Lightning re-executes the command for the second process; this must be the run's command, not the sweep's."""
    words = ["-m", "seed=0", *QUICK, "sweep=s", "trainer.strategy=ddp", "trainer.devices=2"]
    printed = finish(place, "ddp.out", *words)
    assert "2 x cpu" in printed
    assert printed.count("runs/s: psnr_y") == 1, "one sweep, one table"
    (results,) = (place / "runs").glob("**/results.json")
    assert results.parent.parent == place / "runs" / "s"
    assert sorted(json.loads(results.read_text())["test_sets"]["val"]["per_image"]) == ["0", "1"]
    assert "complete: " in finish(place, "again.out", *words)


def test_a_failing_run_does_not_stop_the_others(place):
    printed = finish(place, "out", "-m", "model.window_size=-8,8", "norm=ln", *QUICK, "sweep=s", status=1)
    assert "failed: runs/s/" in printed
    assert len(list((place / "runs" / "s").glob("*/results.json"))) == 1
    assert printed.splitlines()[-1].startswith("error: ")


def test_many_launchers_are_refused(place, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    err = refusal(monkeypatch, capsys, place, "-m", "norm=ln,iln", *QUICK)
    assert err.startswith("error: -m under torchrun: each process would start the whole sweep")
    assert len(err.splitlines()) == 1
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("word", "extra"),
    [
        ("launcher=joblib", "joblib"),
        ("launcher=submitit_local", "submitit"),
        ("launcher=submitit_slurm", "submitit"),
        ("sweeper=optuna", "optuna"),
    ],
)
def test_a_missing_extra_is_named(place, monkeypatch, capsys, word, extra):
    plugin = f"hydra_plugins.hydra_{extra}_{word.partition('=')[0]}"
    if importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(plugin):
        pytest.skip(f"{plugin} is installed")
    err = refusal(monkeypatch, capsys, place, "-m", "norm=ln,iln", word, *QUICK)
    assert err == f"error: hydra/{word} comes with a package that is not installed: pip install 'irformer[{extra}]'\n"
    assert not (place / "runs").exists()


def command(folder: Path, *words: str) -> str:
    """Run train.py as a command, because processes started by launchers must find the program that started them."""
    program = Path(__file__).parent.parent / "train.py"
    environment = {**os.environ, "PYTHONPATH": str(program.parent)}
    done = subprocess.run(
        [sys.executable, program, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_give_the_runs_of_a_sweep_one_after_the_other(place, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    words = ["-m", "norm=ln,iln", *QUICK]
    command(place, *words, "sweep=serial")
    printed = command(place, *words, "sweep=s", f"launcher={launcher}")
    assert "runs/s: psnr_y" in printed
    records = [
        {file.parent.name: json.loads(file.read_text()) for file in (place / "runs" / name).glob("*/results.json")}
        for name in ("serial", "s")
    ]
    assert len(records[0]) == 2
    assert records[0] == records[1]


@pytest.mark.slow
def test_a_search_goes_on_where_it_was(place):
    """Optuna with a fixed seed proposes the same trials again, and they are complete."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["-m", "norm=ln", "optim.lr=tag(log,interval(1e-5,1e-2))", *QUICK, "sweep=s", "sweeper=optuna"]
    command(place, *words, "hydra.sweeper.n_trials=2")
    printed = command(place, *words, "hydra.sweeper.n_trials=3")
    assert printed.count("complete: ") == 2
    files = list((place / "runs" / "s").glob("*/results.json"))
    assert len(files) == 3
    best = (place / "runs" / "s" / "optimization_results.yaml").read_text()
    assert "name: optuna" in best
    assert "optim.lr" in best
