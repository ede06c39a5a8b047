"""Runs of a tiny network with the real configuration."""

import csv
from collections.abc import Sequence
from pathlib import Path

from irformer.config.compose import compose
from irformer.datasets.catalog import SAMPLE_VAL, sample_photos
from irformer.imaging.images import read_image, write_image
from irformer.training.build import build_run
from irformer.training.run import Run

TINY = [
    "model=swinir_tiny",
    "model.embed_dim=8",
    "model.depths=[1]",
    "model.num_heads=[2]",
    "data=sample",
    "trainer=cpu",
    "logger=csv",
    "batch_size=2",
    "patch_size=16",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=1000",
    "data.val_images=all",
    "callbacks.probe=null",
    "name=tiny",
]


def build(folder: Path, *overrides: str, words: Sequence[str] = TINY) -> Run:
    """Build a run in `folder`/run, validated and benchmarked on two crops of a photo."""
    photos = folder / "corners"
    if not photos.is_dir():
        photos.mkdir(parents=True)
        photo = read_image(sample_photos(SAMPLE_VAL)[1])
        write_image(photos / "eye.png", photo[80:145, 100:181])
        write_image(photos / "hat.png", photo[10:60, 60:130])
    words = [*words, f"data.val={photos}", f"test_sets=[{photos}]", *overrides]
    return build_run(compose("train", words), folder / "run")


def train(run: Run) -> Run:
    """Train without the benchmark at the end."""
    run.folder.mkdir(exist_ok=True)
    run.trainer.fit(run.module, run.data, ckpt_path=run.resume.file if run.resume else None)
    return run


def logged(run: Run, name: str) -> list[float]:
    """Return the logged values of a metric in metrics.csv, by step."""
    with (run.folder / "metrics.csv").open(newline="") as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == name]
