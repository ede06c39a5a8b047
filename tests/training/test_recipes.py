"""The recipes of published results: their values, and that each of them trains."""

import math
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import picture
from omegaconf import DictConfig, OmegaConf

from irformer.config.compose import build_network, compose, options
from irformer.imaging.images import write_image
from irformer.training.build import build_run
from irformer.weights.checkpoints import save_network

FIGURES = [name for name in options("experiment") if name.startswith(("figure1", "lab_"))]
OWN = [name for name in options("experiment") if name.startswith("swinir_tiny")]  # of the weights in the package
RECIPES = [name for name in options("experiment") if name not in (*FIGURES, *OWN)]

HALVES = {500_000: [250_000, 400_000, 450_000, 475_000], 1_600_000: [800_000, 1_200_000, 1_400_000, 1_500_000, 1_600_000]}
SWINIR = {"steps": 500_000, "lr": 2e-4, "milestones": HALVES[500_000], "betas": [0.9, 0.999], "loss": "L1Loss", "data": "div2k"}
SWINIR_TUNED = SWINIR | {"steps": 250_000, "lr": 1e-4, "milestones": [125_000, 200_000, 225_000, 237_500]}
LONG = SWINIR | {"steps": 1_600_000, "milestones": HALVES[1_600_000], "batch": 8, "loss": "Charbonnier", "data": "dfwb"}
LONG_TUNED = LONG | {"steps": 800_000, "lr": 1e-4, "milestones": [400_000, 600_000, 700_000, 750_000, 800_000]}
HAT = {"steps": 500_000, "lr": 2e-4, "milestones": HALVES[500_000], "betas": [0.9, 0.99], "loss": "L1Loss", "data": "df2k"}
HAT |= {"patch": 64, "batch": 32}
HAT_TUNED = HAT | {"steps": 250_000, "lr": 1e-4, "milestones": [125_000, 200_000, 225_000, 240_000]}
MINI = HAT | {"steps": 300_000, "patch": 32, "batch": 16}
DENOISE, JPEG = {"patch": 128}, {"patch": 126}
RESTORMER = {"steps": 300_000, "lr": 3e-4, "betas": [0.9, 0.999], "loss": "L1Loss", "data": "dfwb", "patch": 128, "batch": 64}

# Experiment: values of the recipe, and the experiment whose weights it starts from.
EXPECTED: dict[str, tuple[dict, str | None]] = {
    "swinir_x2": (SWINIR | {"patch": 48, "batch": 32}, None),
    "swinir_x3": (SWINIR_TUNED | {"patch": 48, "batch": 32}, "swinir_x2"),
    "swinir_x4": (SWINIR_TUNED | {"patch": 48, "batch": 32}, "swinir_x2"),
    "swinir_light_x2": (SWINIR | {"patch": 64, "batch": 64}, None),
    "swinir_light_x3": (SWINIR_TUNED | {"patch": 64, "batch": 64}, "swinir_light_x2"),
    "swinir_light_x4": (SWINIR_TUNED | {"patch": 64, "batch": 64}, "swinir_light_x2"),
    "hat_x2": (HAT, None),
    "hat_x3": (HAT, None),
    "hat_x4": (HAT_TUNED, "hat_x2"),
    "hat_s_x2": (HAT, None),
    "hat_s_x3": (HAT, None),
    "hat_s_x4": (HAT_TUNED, "hat_s_x2"),
    "hat_iln_x2": (HAT | {"batch": 8}, None),
    "hat_iln_x4": (HAT_TUNED, "hat_iln_x2"),
    "drct_x2": (HAT, None),
    "drct_x4": (HAT, None),
    **{f"hat_mini_{arm}_x{scale}": (MINI, None) for arm in ("ln", "iln", "control") for scale in (2, 4)},
    **{f"swinir_denoise_{kind}_15": (LONG | DENOISE, None) for kind in ("color", "gray")},
    **{
        f"swinir_denoise_{kind}_{sigma}": (LONG_TUNED | DENOISE, f"swinir_denoise_{kind}_15")
        for kind in ("color", "gray")
        for sigma in (25, 50)
    },
    **{f"swinir_jpeg_{kind}_40": (LONG | JPEG, None) for kind in ("color", "gray")},
    **{
        f"swinir_jpeg_{kind}_{quality}": (LONG_TUNED | JPEG, f"swinir_jpeg_{kind}_40")
        for kind in ("color", "gray")
        for quality in (30, 20, 10)
    },
    **{f"restormer_denoise_{kind}_{sigma}": (RESTORMER, None) for kind in ("color", "gray") for sigma in (15, 25, 50, "blind")},
}

# Only sizes: of the networks, the patches, the batches and the run.
SHRUNK = {
    "swinir": ["model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]"],
    "hat": ["model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", "model.compress_ratio=2", "model.squeeze_factor=4"],
    "drct": ["model.embed_dim=8", "model.growth_channels=4", "model.num_heads=[2]"],
    "restormer": [
        "model.dim=8",
        "model.num_blocks=[1,1,1,1]",
        "model.num_refinement_blocks=1",
        "model.heads=[1,1,1,1]",
        "progressive.steps=[1,1]",
        "progressive.patch_size=[16,24]",
        "progressive.batch_size=[2,1]",
    ],
}
SMALL = [
    "patch_size=16",
    "batch_size=2",
    "trainer.max_steps=2",
    "trainer=cpu",
    "data=folder",
    "logger=csv",
    "callbacks.probe=null",
    "name=t",
]


@cache
def recipe(name: str, *overrides: str) -> DictConfig:
    return compose("train", [f"experiment={name}", "name=test", *overrides])


def shrunk(name: str, images: Path) -> list[str]:
    return [*SMALL, *SHRUNK[name.partition("_")[0]], f"data.path={images}", f"data.val={images / 'val'}", f"test_sets=[{images / 'val'}]"]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "val").mkdir()
    for i in range(2):
        write_image(folder / f"{i}.png", picture(68, 72, seed=i))
    write_image(folder / "val" / "0.png", picture(24, 24))
    return folder


def test_every_recipe_is_in_the_table():
    assert {*EXPECTED, *FIGURES, *OWN} == set(options("experiment"))


@pytest.mark.parametrize("name", [*FIGURES, *OWN])
def test_a_recipe_of_our_own_composes(name):
    assert recipe(name).trainer.max_steps > 0


@pytest.mark.parametrize("name", OWN)
def test_debug_fast_validates_on_the_few_bundled_photos(name):
    """A recipe that validates on a number of images of its own set must not keep that number on the smaller one."""
    assert recipe(name, "debug=fast").data.val_images == "all"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_published_numbers(name):
    cfg = recipe(name)
    expected, start = EXPECTED[name]
    found = {
        "steps": cfg.trainer.max_steps,
        "lr": cfg.optim.lr,
        "betas": list(cfg.optim.optimizer.betas),
        "milestones": cfg.optim.schedule.get("milestones"),
        "loss": cfg.loss._target_.rpartition(".")[2],
        "data": cfg.data.name,
        "patch": cfg.patch_size,
        "batch": cfg.batch_size,
    }
    assert {key: found[key] for key in expected} == expected
    assert cfg.init_recipe == start
    assert cfg.optim.ema == (None if name.startswith("restormer") else 0.999)
    assert name.endswith(cfg.task.name.removeprefix("sr"))
    assert cfg.data.draw == ("images" if name == "hat_iln_x2" or name.startswith(("swinir_denoise", "swinir_jpeg")) else "area")
    assert cfg.task.protocol.get("lr", "matlab_uint8") == ("matlab_double" if "mini" in name or "iln" in name else "matlab_uint8")


def test_the_fair_comparison_moves_the_blocks_norm_alone():
    for scale in (2, 4):
        control, iln, ln = (recipe(f"hat_mini_{arm}_x{scale}") for arm in ("control", "iln", "ln"))
        assert control.norm.block == ln.norm.block != iln.norm.block
        assert (control.norm.ends, control.norm.standardize_input) == (iln.norm.ends, iln.norm.standardize_input) == ("affine", True)
        assert (ln.norm.ends, ln.norm.standardize_input) == ("same", False)
        for part in ("task", "data", "optim", "trainer", "loss"):
            assert control[part] == iln[part] == ln[part]


def test_restormer_has_its_stages_mixup_clipping_and_schedule():
    cfg = recipe("restormer_denoise_color_15")
    assert list(cfg.progressive.steps) == [92_000, 64_000, 48_000, 36_000, 36_000, 24_000]
    assert sum(cfg.progressive.steps) == cfg.trainer.max_steps == cfg.optim.schedule.steps
    assert list(cfg.progressive.patch_size) == [128, 160, 192, 256, 320, 384]
    assert list(cfg.progressive.batch_size) == [64, 40, 32, 16, 8, 8]
    assert (cfg.mixup.beta, cfg.mixup.identity, cfg.trainer.gradient_clip_val) == (1.2, True, 0.01)
    assert (cfg.optim.schedule.flat, cfg.optim.schedule.end_lr, cfg.optim.optimizer.weight_decay) == (92_000, 1e-6, 1e-4)
    assert cfg.data.mirror_small
    assert (cfg.norm.name, cfg.model.bias, cfg.task.protocol.noise) == ("ln_biasfree", False, "rgb")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_two_steps(tmp_path, images, name):
    """Only sizes are reduced; a fine-tuning recipe starts from the network of the recipe that it names."""
    overrides = shrunk(name, images)
    start = recipe(name).init_recipe
    if start is not None:
        model = recipe(start, *overrides).model
        torch.manual_seed(1)
        save_network(tmp_path / "start.safetensors", build_network(model), _plain(model), None, 0, {})
        overrides.append(f"init_from={tmp_path / 'start.safetensors'}")
    run = build_run(recipe(name, *overrides), tmp_path / "run")
    assert run.summary.get("init_from", "").startswith("" if start is None else f"{tmp_path / 'start.safetensors'}")
    before = {name: value.clone() for name, value in run.module.network.state_dict().items()}
    run.folder.mkdir()
    run.trainer.fit(run.module, run.data)
    assert run.trainer.global_step == 2
    assert math.isfinite(run.trainer.callback_metrics["train/loss"])
    after = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(value, after[f"network.{name}"]) for name, value in before.items())


def _plain(model: DictConfig) -> dict:

    plain = OmegaConf.to_container(model, resolve=True)
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]
