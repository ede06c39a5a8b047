"""A run on several processes equals a run on one: the same weights, validation, folder and output, with any launcher."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_runs import NETWORK, SMALL, finish, start, type_words, write_photos

from irformer.config.compose import compose
from irformer.errors import UserError
from irformer.training.build import build_run

REPOSITORY = Path(__file__).parent.parent.parent
SETTINGS = ["trainer.max_steps=20", "trainer.val_check_interval=8", "callbacks.probe=null"]
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]


def lightning_processes() -> list[dict[str, str]]:
    """The environment that Lightning's launcher sets for its processes."""
    return [{"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2", **_master()} for rank in range(2)]


def slurm_tasks() -> list[dict[str, str]]:
    """The environment that srun sets for two tasks on one node."""
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"}
    tasks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"} for rank in range(2)]
    return [job | task | {"SLURM_NODELIST": "localhost"} | _master() for task in tasks]


_ports: dict[str, str] = {}


def _master() -> dict[str, str]:
    if not _ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            _ports["MASTER_PORT"] = str(probe.getsockname()[1])
    return {"MASTER_ADDR": "127.0.0.1", **_ports}


@pytest.fixture(scope="module", params=[3, 1], ids=["3 images", "1 image"])
def one(request, tmp_path_factory):
    """Same result as one process, with validation images that two processes cannot share evenly, or fewer images than processes."""
    photos = write_photos(tmp_path_factory.mktemp("val"), request.param)
    folder = tmp_path_factory.mktemp("one") / "run"
    assert finish(start(folder, photos, *SETTINGS)) == 0, Path(f"{folder}.out").read_text()
    return folder, photos


@pytest.mark.parametrize(
    ("processes", "more"),
    [(lightning_processes, []), (lightning_processes, ["max_batch_per_device=1"]), (slurm_tasks, [])],
    ids=["two", "two, two batches each", "srun"],
)
def test_two_processes_train_the_weights_of_one(tmp_path, one, processes, more):
    single, photos = one
    folder = tmp_path / "run"
    _ports.clear()
    started = [start(folder, photos, *SETTINGS, *TWO, *more, environment=environment) for environment in processes()]
    assert [finish(process) for process in started] == [0, 0], Path(f"{folder}.out").read_text()

    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (single, folder))
    for part in ("state_dict", "current_model_state"):
        for name, value in a[part].items():
            assert torch.allclose(value, b[part][name], rtol=0, atol=1e-6), name
    assert a["callbacks"]["BestWeights"]["best"] == pytest.approx(b["callbacks"]["BestWeights"]["best"], abs=1e-4)

    rows, others = ((run / "metrics.csv").read_text().splitlines() for run in (single, folder))
    assert [row.rpartition(",")[0] for row in rows] == [row.rpartition(",")[0] for row in others]
    if not more:  # with several batches, the loss of the last one is logged
        losses = [[float(row.rpartition(",")[2]) for row in run if "train/loss" in row] for run in (rows, others)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    printed = Path(f"{folder}.out").read_text().splitlines()
    assert sum(line.startswith("device ") for line in printed) == 1
    assert sum("results.json" in line for line in printed) == 1


def test_a_validation_mean_does_not_depend_on_who_took_which_image(tmp_path, one):
    """With a learning rate of 0, both runs have the same weights."""
    _, photos = one
    still = ["trainer.max_steps=1", "optim.lr=0", "callbacks.probe=null"]
    _ports.clear()
    started = [start(tmp_path / "one", photos, *still)]
    started += [start(tmp_path / "two", photos, *still, *TWO, environment=environment) for environment in lightning_processes()]
    assert [finish(process) for process in started] == [0, 0, 0], (tmp_path / "two.out").read_text()
    a, b = (torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("one", "two"))
    assert a["callbacks"]["BestWeights"]["best"] == pytest.approx(b["callbacks"]["BestWeights"]["best"], abs=1e-9, rel=0)
    assert (tmp_path / "one" / "results.json").read_bytes() == (tmp_path / "two" / "results.json").read_bytes()


def test_the_global_batch_is_what_is_stated(tmp_path):
    def shared(*words: str) -> tuple[int, int]:
        run = build_run(compose("train", [*SMALL, *words]), tmp_path / "run")
        return run.trainer.accumulate_grad_batches, int(run.trainer.val_check_interval)

    interval = ["trainer.max_steps=10", "trainer.val_check_interval=5"]
    assert shared("batch_size=32", *interval) == (1, 5)
    assert shared("batch_size=32", "max_batch_per_device=16", *interval) == (2, 10)
    assert shared("batch_size=32", "max_batch_per_device=5", *interval) == (8, 40)  # 4 at once: 5 does not divide 32
    assert shared("batch_size=32", "max_batch_per_device=5", "trainer.devices=2", *interval) == (4, 20)
    assert shared("batch_size=32", "trainer.accumulate_grad_batches=4", *interval) == (4, 20)
    with pytest.raises(UserError, match=r"batch_size=5 \(global\) cannot be split evenly among 2 processes and 1 .*: use a multiple of 2"):
        shared("batch_size=5", "trainer.devices=2")
    with pytest.raises(UserError, match=r"max_batch_per_device=4 determines .*, but trainer.accumulate_grad_batches=2 sets it too"):
        shared("max_batch_per_device=4", "trainer.accumulate_grad_batches=2")


def test_fsdp_is_refused_where_it_cannot_run(tmp_path, monkeypatch):
    def refusal(*words: str) -> str:
        with pytest.raises(UserError) as error:
            build_run(compose("train", [word for word in [*SMALL, "trainer=fsdp", *words] if word != "trainer=cpu"]), tmp_path / "run")
        return str(error.value)

    assert refusal() == "trainer.strategy=fsdp requires GPUs, but none is available: use trainer=ddp, or trainer=ddp_spawn on the CPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "does not support weight averaging: add optim.ema=null" in refusal()
    assert "does not support the probe: add callbacks.probe=null" in refusal("optim.ema=null")
    clipped = ["optim.ema=null", "callbacks.probe=null", "trainer.gradient_clip_val=0.01"]
    assert "does not support clipping by norm: add +trainer.gradient_clip_algorithm=value" in refusal(*clipped)


TINY = [*NETWORK, "debug=fast", "logger=csv", "batch_size=4"]


def command(line: str, *words: str, folder: Path) -> subprocess.Popen:
    """Run a command from docs/cluster.md with more arguments in a folder."""
    program, *rest = [str(REPOSITORY / word) if word == "train.py" else word for word in shlex.split(line)]
    interpreter = [sys.executable] if program == "python" else [sys.executable, "-m", "torch.distributed.run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "IRFORMER_DATA": str(folder)}
    return subprocess.Popen(
        [*interpreter, *rest, *words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def documented(start_of_line: str) -> str:
    lines = [line.strip() for line in (REPOSITORY / "docs" / "cluster.md").read_text().splitlines()]
    (found,) = [line for line in lines if line.startswith(start_of_line) and "trainer.accelerator=cpu" in line]
    return found


def test_torchrun_makes_one_folder_and_one_report(tmp_path):
    """As documented, without a name: all processes use the same time in the run's name."""
    done = command(documented("torchrun "), *TINY, folder=tmp_path)
    printed, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    (folder,) = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert printed.count("results.json") == 1
    assert (folder / "results.json").is_file()
    assert "2 x cpu" in printed


@pytest.mark.slow
def test_a_mistake_on_all_processes_gets_one_line(tmp_path):
    done = command(documented("torchrun "), *TINY, "batch_size=3", folder=tmp_path)
    _, errors = done.communicate(timeout=300)
    assert done.returncode != 0
    ours = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(ours) == 1, errors
    assert "batch_size=3 (global) cannot be split evenly among 2 processes" in ours[0]


def test_a_signal_to_the_first_process_ends_all_and_the_run_goes_on(tmp_path):
    """With Lightning's launcher, only the process started by the user gets the signal."""
    line = documented("python ")
    running = command(line, *TINY, "name=job", "resume=auto", "trainer.max_steps=100000", "trainer.val_check_interval=50", folder=tmp_path)
    metrics = tmp_path / "runs" / "job" / "metrics.csv"
    deadline = time.monotonic() + 200
    while not (metrics.is_file() and metrics.stat().st_size > 2000) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    printed, errors = running.communicate(timeout=100)  # also waits for the other process, which keeps the pipe open
    assert running.returncode == 143, errors
    assert "stopped by SIGTERM, saved at step " in printed
    assert printed.count("stopped by") == 1
    assert not errors
    step = int(printed.split("saved at step ")[1].split()[0])
    words = ["resume=runs/job", "trainer=cpu", f"trainer.max_steps={step + 2}", "trainer.log_every_n_steps=1"]  # it may resume elsewhere
    status, printed = type_words(tmp_path, *words)
    assert (status, f"from step {step:,}" in printed) == (0, True), printed
    steps = [int(row.split(",")[0]) for row in metrics.read_text().splitlines() if "train/loss" in row]
    assert steps == list(range(step + 2))
