"""A run that is killed at any time and resumed ends with the same bits as an uninterrupted run."""

import errno
import importlib
import os
import resource
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, finish, start, type_words, write_photos
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from irformer.core.files import locked
from irformer.errors import UserError
from irformer.training import run
from irformer.training.callbacks import saving as checkpointing
from irformer.training.metrics_csv import MetricsCsv
from irformer.training.module import RestorationModule
from irformer.training.resuming import find_resume

# All stateful parts: accumulated batches, drop path, a schedule with steps, averaged weights, validation at irregular steps.
SETTINGS = [
    "trainer.max_steps=7",
    "trainer.accumulate_grad_batches=2",
    "trainer.val_check_interval=3",
    "checkpoint_every=2",
    "optim.schedule.milestones=[3,5]",
    "optim.schedule.warmup=2",
    "model.drop_path_rate=0.5",
    "logger=tensorboard",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("val"), 2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, photos):
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert finish(start(folder, photos, *SETTINGS)) == 0, Path(f"{folder}.out").read_text()
    return folder


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(owner: type | str, name: str, number: int, last_deed=lambda *_, **__: None) -> None:
    """Kill this process at the n-th call of a function of a class or module, after a final action."""
    owner = importlib.import_module(owner) if isinstance(owner, str) else owner
    original, calls = getattr(owner, name), 0

    def patched(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number:
            last_deed(*args, **kwargs)
            die()
        return original(*args, **kwargs)

    setattr(owner, name, patched)


def write_half(checkpoint: dict, file: Path) -> None:
    torch.save(checkpoint, file)
    os.truncate(file, file.stat().st_size // 2)


def write_half_a_row(logger: MetricsCsv, metrics: dict, step: int) -> None:
    with logger.path.open("a") as file:
        file.write(f"{step},train/lo")


def kill_between_the_renames(number: int) -> None:
    """The last checkpoint is already renamed, but the new one is not yet in its place."""
    original, calls = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += target.name == "last.ckpt"
        if calls == number and target.name == "last.ckpt":
            die()
        return original(self, target)

    Path.replace = replace


# Two batches per step, a validation of two images after steps 3, 6 and 7, and checkpoints at 2, 3, 3, 4, 6, 6, 7, 7.
MOMENTS = {
    "before the first checkpoint": partial(at_call, RestorationModule, "training_step", 3),
    "between accumulated batches": partial(at_call, RestorationModule, "training_step", 10),
    "when a step is done": partial(at_call, checkpointing.Ema, "on_train_batch_end", 8),
    "in a validation": partial(at_call, RestorationModule, "validation_step", 2),
    "in the second validation": partial(at_call, RestorationModule, "validation_step", 4),
    "after a validation": partial(at_call, checkpointing.LastCheckpoint, "on_validation_end", 1),
    "in the last validation": partial(at_call, RestorationModule, "validation_step", 6),
    "in the writing of the first checkpoint": partial(at_call, checkpointing.__name__, "_save", 1, write_half),
    "in the writing of a checkpoint": partial(at_call, checkpointing.__name__, "_save", 4, write_half),
    "between the renames": partial(kill_between_the_renames, 5),
    "in the writing of the best weights": partial(at_call, checkpointing.BestWeights, "on_validation_epoch_end", 2),
    "in a row of metrics.csv": partial(at_call, MetricsCsv, "log_metrics", 14, write_half_a_row),
    "in the closing benchmark": partial(at_call, run.__name__, "evaluate_sets", 2),
}


# Slow cases that differ little from the others.
SLOW = ("when a step is done", "in the second validation", "after a validation")


@pytest.mark.parametrize("moment", [pytest.param(moment, marks=pytest.mark.slow if moment in SLOW else ()) for moment in MOMENTS])
def test_a_run_that_was_killed_ends_with_the_same_bits(tmp_path, photos, whole, moment):
    folder = tmp_path / "run"
    assert finish(start(folder, photos, *SETTINGS, sabotage=MOMENTS[moment])) == -signal.SIGKILL
    assert finish(start(folder, photos, *SETTINGS, f"resume={folder}")) == 0, Path(f"{folder}.out").read_text()
    require_same(whole, folder)


def send(signum: int, owner: type | str, name: str, number: int) -> None:
    """Send this process a signal at the n-th call of a function, which then continues if possible."""
    owner = importlib.import_module(owner) if isinstance(owner, str) else owner
    original, calls = getattr(owner, name), 0

    def patched(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signum)
        return original(*args, **kwargs)

    setattr(owner, name, patched)


@pytest.mark.parametrize(
    ("signum", "status", "moment", "place"),
    [
        (signal.SIGTERM, 143, (RestorationModule, "training_step", 9), "saved at step 5 of 7"),
        (signal.SIGINT, 130, (RestorationModule, "training_step", 6), "saved at step 3 of 7"),  # before a validation, which is skipped
        (signal.SIGUSR1, 138, (RestorationModule, "validation_step", 4), "saved at step 6 of 7"),
        (signal.SIGTERM, 143, (run.__name__, "evaluate_sets", 2), "saved at step 7 of 7"),
    ],
    ids=["training", "before a validation", "validation", "benchmark"],
)
def test_a_signal_saves_and_tells_how_to_resume(tmp_path, photos, whole, signum, status, moment, place):
    folder = tmp_path / "run"
    assert finish(start(folder, photos, *SETTINGS, sabotage=partial(send, signum, *moment))) == status
    lines = Path(f"{folder}.out").read_text().splitlines()
    assert lines[-1] == f"stopped by {signum.name}, {place}; to resume: python train.py resume={os.path.relpath(folder)}"
    assert finish(start(folder, photos, *SETTINGS, f"resume={folder}")) == 0, Path(f"{folder}.out").read_text()
    require_same(whole, folder)


def fill_the_disk(from_checkpoint: int, until: int) -> None:
    """Limit files to 40 kB, less than a checkpoint, while some of the checkpoints are written."""
    original, calls = checkpointing._save, 0

    def save(checkpoint: dict, file: Path) -> None:
        nonlocal calls
        calls += 1
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if from_checkpoint <= calls < until:
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
        try:
            original(checkpoint, file)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    checkpointing._save = save


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, photos, whole):
    """Training continues with a message; killed later, the run resumes from an earlier checkpoint with the same bits."""
    folder = tmp_path / "run"

    assert finish(start(folder, photos, *SETTINGS, sabotage=full_until_killed)) == -signal.SIGKILL
    printed = Path(f"{folder}.out").read_text()
    assert "last.ckpt of step 4 could not be written: File too large; the previous one is kept" in printed
    assert "last.ckpt of step 6 could not be written" in printed
    assert find_resume(folder).step == 3
    assert finish(start(folder, photos, *SETTINGS, f"resume={folder}")) == 0, Path(f"{folder}.out").read_text()
    require_same(whole, folder)


def full_until_killed() -> None:
    fill_the_disk(4, 8)
    at_call(RestorationModule, "training_step", 14)


def test_no_room_for_a_log_ends_the_run_with_one_line(tmp_path, photos):
    folder = tmp_path / "run"
    assert finish(start(folder, photos, *SETTINGS, sabotage=no_room_for_logs)) == 1
    last = Path(f"{folder}.out").read_text().splitlines()[-1]
    assert "metrics.csv: No space left on device; free some space; stopped before its first checkpoint: nothing was saved" in last
    assert "resume=" not in last


def no_room_for_logs() -> None:
    def log_metrics(logger: MetricsCsv, *_, **__) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(logger.path))

    MetricsCsv.log_metrics = log_metrics


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, photos, whole, damage):
    folder = tmp_path / "run"
    assert finish(start(folder, photos, *SETTINGS, sabotage=MOMENTS["in the last validation"])) == -signal.SIGKILL
    last, previous = (folder / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt"))
    content = bytearray(last.read_bytes())
    content[len(content) // 3] ^= 1
    last.write_bytes(content[:-100] if damage == "cut" else content)
    assert finish(start(folder, photos, *SETTINGS, f"resume={folder}")) == 0, Path(f"{folder}.out").read_text()
    assert "last.ckpt is damaged (" in Path(f"{folder}.out").read_text()
    assert "resuming from previous.ckpt" in Path(f"{folder}.out").read_text()
    require_same(whole, folder)

    for file in (last, previous):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.ckpt is damaged \(.*previous\.ckpt is damaged \(.*nothing to resume from"):
        find_resume(folder)


WORDS = [word for word in (*SMALL, *SETTINGS) if not word.startswith(("name=", "logger="))]


def test_one_command_again_and_again(tmp_path, photos):
    """`name=NAME resume=auto` starts the run, resumes it, reports that it is complete, and refuses other settings."""
    words = [*WORDS, "logger=csv", f"data.val={photos}", f"test_sets=[{photos}]", "name=job", "resume=auto"]
    assert type_words(tmp_path, *words, sabotage=MOMENTS["in the writing of a checkpoint"])[0] == -signal.SIGKILL
    status, printed = type_words(tmp_path, *words)
    assert (status, "from step 3" in printed, "wrote runs/job/results.json" in printed) == (0, True, True), printed
    assert type_words(tmp_path, *words) == (0, "runs/job is complete: 7 steps and its results; nothing to do\n")
    status, printed = type_words(tmp_path, *words, "optim.lr=1e-3")
    assert (status, printed) == (
        1,
        "error: resume=auto: runs/job was started with optim.lr=0.0002, not 0.001; name=NAME starts a new run\n",
    )
    status, printed = type_words(tmp_path, *words, "trainer.max_steps=8")
    assert (status, "from step 7" in printed) == (0, True), printed
    status, printed = type_words(tmp_path, "resume=runs/job", "batch_size=8")
    assert printed.startswith("error: batch_size=8 together with resume: a resumed run keeps its batch_size; ")
    status, printed = type_words(tmp_path, "resume=runs/job", "seed=0", "norm=iln")  # the value that the run has already
    assert "is already at step 8: set trainer.max_steps to a larger number to continue" in printed


def test_auto_without_a_name_finds_the_unfinished_run(tmp_path, photos):
    words = [*WORDS, "logger=csv", f"data.val={photos}", f"test_sets=[{photos}]", "trainer.max_steps=3"]
    killed = MOMENTS["in a validation"]
    assert type_words(tmp_path, *words, "name=ours", sabotage=killed)[0] == -signal.SIGKILL
    assert type_words(tmp_path, *words, "seed=1", "name=another", sabotage=killed)[0] == -signal.SIGKILL
    status, printed = type_words(tmp_path, *words, "resume=auto")
    assert (status, "wrote runs/ours/results.json" in printed) == (0, True), printed
    assert sorted(path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()) == ["another", "ours"]
    status, printed = type_words(tmp_path, *words, "resume=auto", "trainer.max_steps=1")  # complete: a new run
    assert (status, "runs/ours" in printed) == (0, False), printed
    assert len([path for path in (tmp_path / "runs").iterdir() if path.is_dir()]) == 3


def test_two_processes_do_not_train_in_one_folder(tmp_path, photos):
    folder = tmp_path / "run"
    with locked(folder):
        assert finish(start(folder, photos, *SETTINGS)) == 1
    assert "another process is training in this folder" in Path(f"{folder}.out").read_text()


def require_same(whole: Path, resumed: Path) -> None:
    states = [torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in (whole, resumed)]
    for state in states:
        del state["loops"], state["epoch"]  # Lightning counts the starts
        del state["irformer_resume"]["sizes"]  # names of TensorBoard files contain the time
    if states[1]["irformer_resume"]["validation_due"]:  # the last one ran without training, so the file predates it
        for state in states:
            del state["irformer_resume"], state["callbacks"]["BestWeights"]
    require_equal(*states, "")
    for name in ("metrics.csv", "dynamics.csv", "checkpoints/best.safetensors", "results.json"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
    assert scalars(whole) == scalars(resumed)
    assert not list(resumed.rglob(".*.[0-9]*")), "a file that was being written is left"


def require_equal(a, b, where: str) -> None:
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            require_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            require_equal(x, y, f"{where}/{i}")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
