"""Which keys the command line may change in a resumed run."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from small_runs import SMALL, type_words, write_photos

from irformer.config.compose import compose
from irformer.errors import UserError
from irformer.runs.resume import resumed_config

SAVED = ["data=sample", "trainer=gpu", "trainer.max_steps=7", "trainer.gradient_clip_val=0.5", "checkpoint_every=3", "optim.ema=null"]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    OmegaConf.save(compose("train", [*SAVED, "name=run"]), folder / "config.yaml")
    return folder


def resume(folder: Path, *words: str):
    overrides = [f"resume={folder}", *words]
    return resumed_config(compose("train", overrides), folder, overrides)


def test_a_group_changes_only_where_the_run_computes(folder):
    cfg = resume(folder, "trainer=ddp_spawn", "logger=csv", "callbacks=default")
    assert (cfg.trainer.accelerator, cfg.trainer.devices, cfg.trainer.strategy, cfg.logger.tensorboard) == ("cpu", 2, "ddp_spawn", False)
    assert (cfg.trainer.max_steps, cfg.trainer.gradient_clip_val, cfg.checkpoint_every, cfg.optim.ema) == (7, 0.5, 3, None)


def test_what_the_command_line_names_changes(folder):
    words = ["trainer.max_steps=9", "optim.schedule.milestones=[5,8]", "trainer.precision=fp32", "test_sets=[sample]", "~callbacks.probe"]
    cfg = resume(folder, *words)
    assert (cfg.trainer.max_steps, list(cfg.optim.schedule.milestones), cfg.trainer.precision) == (9, [5, 8], "fp32")
    assert list(cfg.test_sets) == ["sample"]
    assert "probe" not in cfg.callbacks


@pytest.mark.parametrize(
    "word",
    [
        "optim=adamw",
        "optim.lr=1e-5",
        "optim.ema=0.9",
        "optim/schedule=cosine",
        "data=df2k",
        "data.mirror_small=true",
        "model=hat",
        "model.embed_dim=30",
        "norm=iln",
        "loss=charbonnier",
        "seed=3",
        "batch_size=8",
        "patch_size=24",
        "experiment=swinir_x2",
        "task=sr_x3",
        "task.protocol.border=0",
        "mixup={beta: 1}",
        "init_from=somewhere",
        "~optim.optimizer.weight_decay",
    ],
)
def test_what_would_make_it_another_run_is_refused(folder, word, attempts):
    with pytest.raises(
        UserError, match=r"together with resume: a resumed run keeps its .*; init_from=.* starts a new run from its weights$"
    ):
        resume(folder, word)
    attempts.refused("resuming")


def test_words_that_change_nothing_are_fine(folder):
    assert resume(folder, "data=sample", "seed=0", "norm=ln", "optim=adam", "optim.ema=null").trainer.max_steps == 7


def test_keys_that_are_newer_than_the_run_take_their_defaults(folder):
    saved = OmegaConf.load(folder / "config.yaml")
    del saved.data.mirror_small, saved.mixup, saved.logger.wandb
    OmegaConf.save(saved, folder / "config.yaml")
    cfg = resume(folder)
    assert (cfg.data.mirror_small, cfg.mixup, cfg.logger.wandb) == (False, None, None)


def test_the_summary_says_what_changed_and_the_old_configuration_stays(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    write_photos(photos, 2)
    words = [word for word in SMALL if not word.startswith("name=")]
    words += [f"data.val={photos}", f"test_sets=[{photos}]", "name=job", "trainer.max_steps=2", "trainer.val_check_interval=2"]
    assert type_words(tmp_path, *words)[0] == 0
    before = (tmp_path / "runs/job/config.yaml").read_text()
    status, printed = type_words(
        tmp_path, "resume=runs/job", "trainer.max_steps=4", "optim.schedule.milestones=[3]", "trainer=cpu", "checkpoint_every=2"
    )
    assert status == 0, printed
    changed = next(line for line in printed.splitlines() if line.startswith("changed"))
    assert changed.split(maxsplit=1)[1] == (
        "optim.schedule.milestones from [250000, 400000, 450000, 475000] to [3]; trainer.max_steps from 2 to 4"
    )
    assert "4 of 4 patches" in printed
    assert (tmp_path / "runs/job/config-1.yaml").read_text() == before
    now = OmegaConf.load(tmp_path / "runs/job/config.yaml")
    assert (now.trainer.max_steps, now.trainer.deterministic, now.batch_size) == (4, True, 4)


def test_auto_passes_over_a_broken_neighbour(tmp_path, attempts):
    photos = tmp_path / "photos"
    photos.mkdir()
    write_photos(photos, 2)
    broken = tmp_path / "runs/broken"
    broken.mkdir(parents=True)
    (broken / "config.yaml").write_text("trainer: [")
    words = [word for word in SMALL if not word.startswith("name=")]
    words += [f"data.val={photos}", f"test_sets=[{photos}]", "trainer.max_steps=1", "trainer.val_check_interval=1", "resume=auto"]
    status, printed = type_words(tmp_path, *words)
    assert status == 0, printed
    assert "resume=auto: skipped runs/broken: runs/broken/config.yaml: cannot be read" in printed
    attempts.handled("resuming")
