"""Small runs in separate processes, shared by the tests of resuming and of several processes."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console

from irformer.commands.train import train
from irformer.config.compose import compose
from irformer.datasets.catalog import SAMPLE_VAL, sample_photos
from irformer.imaging.images import read_image, write_image
from irformer.training.build import build_run

NETWORK = ["norm=iln", "model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]"]
SMALL = [
    *NETWORK,
    "data=sample",
    "trainer=cpu",
    "trainer.deterministic=true",
    "trainer.log_every_n_steps=1",
    "logger=csv",
    "batch_size=4",
    "patch_size=16",
    "callbacks.probe.every=2",
    "data.val_images=all",
    "callbacks.monitor=null",  # it logs times
    "name=test",
]

# Processes are forked from one that has imported everything and has not started any threads.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["irformer.training.build", "irformer.commands.train", "lightning.pytorch", "tensorboard"])


def write_photos(folder: Path, count: int) -> Path:
    """Create a validation set of small crops of a photo."""
    photo = read_image(sample_photos(SAMPLE_VAL)[1])
    for i in range(count):
        write_image(folder / f"part{i}.png", photo[80 + 8 * i : 130 + 8 * i, 100:164])
    return folder


def execute(folder: Path, photos: Path, *overrides: str, quiet: bool = True) -> None:
    """Run training in a folder."""
    torch.set_num_threads(1)
    cfg = compose("train", [*SMALL, f"data.val={photos}", f"test_sets=[{photos}]", *overrides])
    build_run(cfg, folder).execute(Console(quiet=quiet, width=200))


def start(
    folder: Path, photos: Path, *overrides: str, sabotage: Callable[[], None] | None = None, environment: dict[str, str] | None = None
) -> BaseProcess:
    """Train in a separate process with output to FOLDER.out; `sabotage` is called in it before training."""
    process = context.Process(target=_run, args=(folder, photos, overrides, sabotage, environment or {}))
    process.start()
    return process


def type_words(folder: Path, *words: str, sabotage: Callable[[], None] | None = None) -> tuple[int, str]:
    """Run train.py with arguments in a folder; return the exit code and the output."""
    out = folder / "printed"
    out.unlink(missing_ok=True)
    process = context.Process(target=_type, args=(folder, out, words, sabotage))
    process.start()
    return finish(process), out.read_text()


def finish(process: BaseProcess) -> int:
    """Wait for a process and return its exit code, negative for a signal."""
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def _run(folder: Path, photos: Path, overrides: tuple[str, ...], sabotage: Callable[[], None] | None, environment: dict[str, str]) -> None:
    _print_to(Path(f"{folder}.out"))
    os.environ.update(environment)
    rank_zero_only.rank = int(environment.get("LOCAL_RANK", environment.get("SLURM_PROCID", 0)))  # as found at import time
    if sabotage is not None:
        sabotage()
    execute(folder, photos, *overrides, quiet=False)


def _type(folder: Path, out: Path, words: tuple[str, ...], sabotage: Callable[[], None] | None) -> None:
    _print_to(out)
    os.chdir(folder)
    sys.argv = ["train.py", *words]
    torch.set_num_threads(1)
    if sabotage is not None:
        sabotage()
    train()


def _print_to(file: Path) -> None:
    with file.open("a") as out:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(out.fileno(), stream.fileno())
