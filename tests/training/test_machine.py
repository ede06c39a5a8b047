"""Machine faults during a run: a one-line message, the right exit status, and no mention of a checkpoint that does not exist."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import SMALL, type_words, write_photos

from irformer.core.faults import machine_fault
from irformer.core.files import write_atomically
from irformer.training.callbacks import saving as checkpointing
from irformer.training.metrics_csv import MetricsCsv
from irformer.training.module import RestorationModule

REPOSITORY = Path(__file__).parent.parent.parent
AREA = "machine faults"
NOTHING = "stopped before its first checkpoint: nothing was saved, the same command starts again"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    photos = write_photos(tmp_path_factory.mktemp("val"), 2)
    kept = [word for word in SMALL if not word.startswith(("name=", "logger="))]
    sizes = ["trainer.max_steps=4", "trainer.val_check_interval=2", "checkpoint_every=1", "callbacks.probe=null"]
    return [*kept, *sizes, f"data.val={photos}", f"test_sets=[{photos}]", "name=job"]


def refused(folder: Path, *words: str, sabotage=None) -> str:
    """Return the single error line of a command that exits with status 1."""
    status, printed = type_words(folder, *words, sabotage=sabotage)
    assert status == 1, printed
    assert "Traceback" not in printed
    assert "Exception" not in printed
    line = printed.splitlines()[-1]
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("path", "logger"),
    [("runs", "csv"), ("runs/job", "csv"), ("runs/job/checkpoints", "csv"), ("runs/job/tensorboard", "tensorboard")],
)
def test_a_file_where_a_folder_should_be(tmp_path, words, path, logger, attempts):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    line = refused(tmp_path, *words, f"logger={logger}")
    assert line.startswith(f"{path}: is a file, expected a folder; move it, or choose another folder")
    assert "resume=" not in line
    assert file.read_text() == "mine"
    attempts.refused(AREA)


def permissions_count() -> None:
    """Drop root's capability to bypass file permissions (CAP_DAC_OVERRIDE)."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert libc.capget(header, sets) == 0
        sets[0] &= ~(1 << 1)
        assert libc.capset(header, sets) == 0


@pytest.mark.parametrize("path", ["runs", "runs/job", "runs/job/checkpoints"])
def test_a_folder_that_is_not_writable(tmp_path, words, path, attempts):
    (tmp_path / path).mkdir(parents=True)
    (tmp_path / path).chmod(0o555)
    line = refused(tmp_path, *words, "logger=csv", sabotage=permissions_count)
    assert line.startswith(path)
    assert ": Permission denied; grant yourself write permission, or choose another folder" in line
    assert "resume=" not in line
    assert not list((tmp_path / path).glob("*"))
    attempts.refused(AREA)


def small_files() -> None:
    """Limit the files of this process to 4 kB, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def fill_up_at_step_3() -> None:
    original, calls = RestorationModule.training_step, 0

    def training_step(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 3:
            small_files()
        return original(self, *args, **kwargs)

    RestorationModule.training_step = training_step


def test_a_disk_that_fills_up_under_tensorboard(tmp_path, words, attempts):
    """TensorBoard's thread fails first; the run ends with one line that names the last checkpoint."""
    line = refused(tmp_path, *words, "logger=tensorboard", "callbacks.images.images=2", sabotage=fill_up_at_step_3)
    assert "File too large; free some space; stopped, saved at step 2 of 4; to resume: python train.py resume=runs/job" in line
    status, printed = type_words(tmp_path, "resume=runs/job")
    assert (status, "from step 2" in printed) == (0, True), printed
    attempts.refused(AREA)
    attempts.handled(AREA)


def test_a_disk_that_is_full_from_the_start(tmp_path, words, attempts):
    line = refused(tmp_path, *words, "logger=tensorboard", sabotage=small_files)
    assert "File too large; free some space; " in line
    assert line.endswith(NOTHING)
    attempts.refused(AREA)


def test_no_checkpoint_fits(tmp_path, words, attempts):
    """Training continues to the end; the messages do not mention a previous checkpoint."""
    status, printed = type_words(tmp_path, *words, "logger=csv", sabotage=no_room_for_checkpoints)
    assert status == 0, printed
    reason = "File too large; there is none yet; training continues, the next one may fit"
    line = f"runs/job/checkpoints/last.ckpt of step 1 could not be written: {reason}"
    assert line in printed.splitlines()
    assert "the previous one" not in printed
    assert line in (tmp_path / "runs/job/log.txt").read_text().splitlines()
    attempts.handled(AREA)


def no_room_for_checkpoints() -> None:
    original = checkpointing._save

    def save(checkpoint: dict, file: Path) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
        try:
            original(checkpoint, file)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    checkpointing._save = save


@pytest.mark.parametrize(
    ("signum", "status", "call", "saved"),
    [
        (signal.SIGTERM, 143, 1, "stopped by SIGTERM, saved at step 1 of 4; to resume: python train.py resume=runs/job"),
        (signal.SIGINT, 130, 0, "stopped by SIGINT before its first checkpoint: nothing was saved, the same command starts again"),
    ],
)
def test_a_stopped_run_promises_only_what_it_has(tmp_path, words, signum, status, call, saved, attempts):
    code, printed = type_words(tmp_path, *words, "logger=csv", sabotage=Send(signum, call))
    assert (code, printed.splitlines()[-1]) == (status, saved)
    assert (tmp_path / "runs/job/log.txt").read_text().splitlines()[-1] == saved
    attempts.handled(AREA)


class Send:
    """Send the process a signal: in its first training step, or before training."""

    def __init__(self, signum: int, call: int) -> None:
        self.signum, self.call = signum, call

    def __call__(self) -> None:
        method = "training_step" if self.call else "configure_optimizers"
        original = getattr(RestorationModule, method)

        def patched(*args, **kwargs):
            os.kill(os.getpid(), self.signum)
            return original(*args, **kwargs)

        setattr(RestorationModule, method, patched)


def test_a_folder_that_is_removed_under_a_run(tmp_path, words, attempts):
    line = refused(tmp_path, *words, "logger=csv", sabotage=folder_vanishes)
    assert line.startswith("runs/job: the folder was removed during the run; stopped")
    attempts.refused(AREA)


def folder_vanishes() -> None:
    original, calls = MetricsCsv.log_metrics, 0

    def log_metrics(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 2:
            shutil.rmtree(self.path.parent)
        return original(self, *args, **kwargs)

    MetricsCsv.log_metrics = log_metrics


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_a_killed_process_is_named(tmp_path, words, strategy, attempts):
    command = [sys.executable, str(REPOSITORY / "train.py"), *words, "logger=csv", "trainer.max_steps=100000", "checkpoint_every=5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    running = subprocess.Popen(
        [*command, "trainer.devices=2", f"trainer.strategy={strategy}", "trainer.val_check_interval=100000"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not (tmp_path / "runs/job/checkpoints/last.ckpt").exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    children = [int(pid) for pid in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()]
    ranks = [pid for pid in children if "resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(ranks[-1], signal.SIGKILL)
    _, errors = running.communicate(timeout=100)
    assert running.returncode == 1, errors
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if line]
    assert len(lines) == 1 or strategy == "ddp_spawn", errors  # Lightning and PyTorch print messages for these processes too
    assert lines[-1].startswith("error: process 1 was killed by SIGKILL (the kernel does this when memory runs out); stopped, saved at")
    assert lines[-1].endswith("; to resume: python train.py resume=runs/job")
    if strategy == "ddp":
        assert (tmp_path / "runs/job/log.txt").read_text().splitlines()[-1] == lines[-1]
    attempts.refused(AREA)


def test_faults_are_told_by_the_file_that_they_belong_to(tmp_path, monkeypatch, attempts):
    def write(file: Path) -> None:
        file.write_bytes(b"x" * 10_000)

    monkeypatch.chdir(tmp_path)
    Path("kept").write_text("kept")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            write_atomically(Path("kept"), write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert machine_fault(error.value) == "kept: File too large; free some space"
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]
    assert Path("kept").read_text() == "kept"
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space left") as error:
        full.write(b"x")
    assert machine_fault(error.value, Path("there")) == "there: No space left on device; free some space"
    assert machine_fault(FileNotFoundError(2, "No such file", "x")) is None
    for _ in range(2):
        attempts.refused(AREA)


def test_full_disks_are_recognised_under_safetensors(tmp_path, attempts):
    import torch

    from irformer.weights.checkpoints import save_weights

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            save_weights(tmp_path / "best.safetensors", {"a": torch.zeros(10_000)}, "{}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(tmp_path / "best.safetensors")
    assert not list(tmp_path.iterdir())
    attempts.refused(AREA)
