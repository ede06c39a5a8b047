"""Progressive sizes, mixup and gradient clipping: bit-exact resume, and user errors."""

import csv
from pathlib import Path

import pytest
import torch
from conftest import picture
from rich.console import Console

from irformer.config.compose import compose
from irformer.errors import UserError
from irformer.imaging.images import write_image
from irformer.training.build import build_run

SMALL = [
    "model=swinir_tiny",
    "model.embed_dim=8",
    "model.depths=[1]",
    "model.num_heads=[2]",
    "data=folder",
    "trainer=cpu",
    "logger=csv",
    "callbacks.probe=null",
    "trainer.log_every_n_steps=1",
    "batch_size=4",
    "patch_size=8",
    "name=test",
]
PROGRESSIVE = [
    "progressive={steps: [2, 2, 1], patch_size: [8, 16, 24], batch_size: [4, 2, 2]}",
    "mixup={beta: 1.2, identity: true}",
    "optim/schedule=cosine",
    "optim.schedule.steps=6",
    "trainer.gradient_clip_val=0.01",
]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    for i in range(3):
        write_image(folder / f"{i}.png", picture(56, 60, seed=i))
    (folder / "val").mkdir()
    write_image(folder / "val" / "0.png", picture(24, 24))
    return [f"data.path={folder}", f"data.val={folder / 'val'}", f"test_sets=[{folder / 'val'}]"]


def train(folder: Path, *overrides: str) -> None:
    build_run(compose("train", [*SMALL, *overrides]), folder).execute(Console(quiet=True))


def logged(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == name]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, images) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(folder, *images, *PROGRESSIVE, "trainer.max_steps=6")
    return folder


@pytest.mark.parametrize("stop", [2, 3, 5], ids=["at an edge", "within a stage", "beyond the last stage's steps"])
def test_a_run_in_stages_resumes_to_the_same_bits(tmp_path, images, whole, stop):
    train(tmp_path, *images, *PROGRESSIVE, f"trainer.max_steps={stop}")
    train(tmp_path, *images, *PROGRESSIVE, "trainer.max_steps=6", f"resume={tmp_path}")
    first, resumed = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, tmp_path))
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in first[part].items())
    for name in ("train/loss", "train/grad_norm"):
        assert logged(tmp_path, name) == logged(whole, name)
        assert len(logged(whole, name)) == 6


def test_the_logged_norm_is_that_before_clipping_and_the_step_is_clipped(tmp_path, images):
    """With plain gradient descent at rate 1, the weights move by exactly the clipped norm."""
    sgd = ["optim.optimizer._target_=torch.optim.SGD", "~optim.optimizer.betas", "optim.lr=1", "optim.schedule.milestones=[]"]
    cfg = compose("train", [*SMALL, *images, *sgd, "trainer.max_steps=1", "trainer.gradient_clip_val=0.01", "optim.ema=null"])
    run = build_run(cfg, tmp_path)
    before = {name: value.detach().clone() for name, value in run.module.network.named_parameters()}
    batch = [run.data.samples[index] for index in range(4)]
    lq, hq = (torch.stack([sample[name] for sample in batch]).float() / 255 for name in ("lq", "hq"))
    run.module.network.train()
    loss = (run.module.network(lq) - hq).abs().mean()
    gradients = torch.autograd.grad(loss, list(run.module.network.parameters()))
    run.trainer.fit(run.module, run.data)
    moved = torch.cat([(value - before[name]).flatten() for name, value in run.module.network.named_parameters()])
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    assert norm > 0.02
    assert logged(tmp_path, "train/grad_norm") == [pytest.approx(norm, rel=1e-4)]
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_an_argument_that_the_optimizer_refuses_is_told_before_training(tmp_path, images):
    cfg = compose("train", [*SMALL, *images, "optim.optimizer._target_=torch.optim.SGD"])
    with pytest.raises(UserError, match=r"unknown key optim\.optimizer\.betas: SGD takes .*; '~optim\.optimizer\.betas' removes it"):
        build_run(cfg, tmp_path)


def test_a_batch_that_cannot_be_shared_in_some_stage_is_refused(tmp_path, images):
    cfg = compose("train", [*SMALL, *images, *PROGRESSIVE, "trainer.accumulate_grad_batches=4"])
    with pytest.raises(UserError, match=r"batch_size=2 \(global\) cannot be split evenly among 1 processes and 4 accumulated batches"):
        build_run(cfg, tmp_path).execute(Console(quiet=True))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([*PROGRESSIVE, "batch_size=8"], r"batch_size=8 and progressive\.batch_size=\[4, 2, 2\]: .* progressive=null"),
        (
            ["progressive={steps: [2, 2], patch_size: [8, 16]}"],
            r"progressive\.batch_size is missing: expected a list of 1 or more whole numbers",
        ),
        (["progressive={steps: [2], patch_size: [8, 32], batch_size: [4, 2]}"], r"found 1 steps, 2 patch_size, 2 batch_size"),
        (
            ["progressive={steps: [2, 2], patch_size: [8, 32], batch_size: [4, 2]}"],
            r"60x56 pixels, smaller than the training patch of 64x64",
        ),
        (["mixup={alpha: 1.2}"], r"unknown key mixup\.alpha: Mixup takes beta, identity"),
        (["init_recipe=hat_x2"], r"init_from is missing: .* experiment=hat_x2; set init_from=PATH.* init_recipe=null"),
    ],
)
def test_mistakes_are_told_before_training(tmp_path, images, overrides, message):
    with pytest.raises(UserError, match=message):
        build_run(compose("train", [*SMALL, *images, *overrides]), tmp_path)
