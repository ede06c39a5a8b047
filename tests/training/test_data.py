"""Training data: packed or from files, mixed, compared with the test images, and behavior when a file disappears."""

import io
import re

import cv2
import pytest
import torch
from conftest import picture
from rich.console import Console

from irformer.config.compose import compose
from irformer.data.packing import pack_set
from irformer.errors import UserError
from irformer.imaging.images import write_image
from irformer.training.build import build_run
from irformer.training.run import Run

TINY = [
    "norm=iln",
    "model=swinir_tiny",
    "model.embed_dim=8",
    "model.depths=[1]",
    "model.num_heads=[2]",
    "patch_size=8",
    "batch_size=4",
    "trainer=cpu",
    "logger=csv",
    "callbacks.probe=null",
    "name=test",
]


@pytest.fixture
def root(tmp_path):
    """Create a data folder with a small BSDS400, WED, and a test set Set5."""
    for place, sizes in {"BSDS400/HR": [(40, 60), (60, 40), (48, 51)], "WED/HR": [(64, 64), (33, 80)], "Set5/HR": [(34, 38)]}.items():
        (tmp_path / "data" / place).mkdir(parents=True)
        for i, size in enumerate(sizes):
            write_image(tmp_path / "data" / place / f"{i}.png", picture(*size, seed=10 * len(place) + i))
    return tmp_path / "data"


def build(root, folder, *overrides: str) -> Run:
    return build_run(compose("train", [*TINY, f"paths.data={root}", "test_sets=[Set5]", *overrides]), folder)


def checkpoint(folder) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def same_weights(a: dict, b: dict) -> bool:
    return all(torch.equal(a["current_model_state"][name], b["current_model_state"][name]) for name in a["current_model_state"])


def test_training_from_the_pack_and_from_the_folder_gives_the_same_weights_bit_for_bit(root, tmp_path):
    pack_set("bsds400", root, None, None, lambda *_: None)
    ends = {}
    for name, packed in [("packed", "true"), ("folder", "false")]:
        run = build(root, tmp_path / name, "data=bsds400", f"data.packed={packed}", "trainer.max_steps=4")
        assert f"bsds400, 3 images, {name}, LQ made on the fly" in run.summary["data"]
        run.execute(Console(quiet=True))
        ends[name] = checkpoint(tmp_path / name)
    other = build(root, tmp_path / "other", "data=bsds400", "seed=1", "trainer.max_steps=4")
    other.execute(Console(quiet=True))
    assert same_weights(ends["packed"], ends["folder"])
    assert not same_weights(ends["packed"], checkpoint(tmp_path / "other"))


def test_a_store_whose_sources_have_changed_is_reported_and_not_used(root, tmp_path):
    store = pack_set("BSDS400", root, None, None, lambda *_: None)
    write_image(root / "BSDS400" / "HR" / "1.png", picture(60, 40, seed=99))
    run = build(root, tmp_path / "run", "data=bsds400")
    assert "3 images, folder" in run.summary["data"]
    assert f"1.png: changed since it was packed into {store} (1 such)" in run.summary["note"]
    assert "scripts/prepare_data.py pack BSDS400 updates it" in run.summary["note"]


def test_a_store_alone_is_enough(root, tmp_path):
    pack_set("BSDS400", root, tmp_path / "stores", None, lambda *_: None)
    (root / "BSDS400").rename(root / "put away")
    run = build(root, tmp_path / "run", "data=bsds400", f"paths.packed={tmp_path / 'stores'}")
    assert "3 images, packed" in run.summary["data"]
    with pytest.raises(UserError, match="BSDS400 was not found below"):
        build(root, tmp_path / "run", "data=bsds400")


def test_mixtures_are_named_and_their_mistakes_too(root, tmp_path):
    pack_set("WED", root, None, None, lambda *_: None)
    mixture = ["data=mixture", "data.sets={BSDS400: 3, WED: 1}"]
    run = build(root, tmp_path / "run", *mixture)
    assert "mixture, 5 images, BSDS400 folder, WED packed" in run.summary["data"]
    for overrides, message in [
        (["data=mixture"], r"data=mixture needs sets with their shares, such as 'data\.sets=\{DIV2K: 0\.5"),
        (["data=mixture", "data.sets={WED: 0}"], r"data\.sets=\{WED: 0\}: expected .*names with shares above 0"),
        (["data=mixture", "data.sets={DIV3K: 1}"], "unknown training set DIV3K"),
        (["data=bsds400", "data.draw=pixels"], "data.draw=pixels: expected images or area"),
    ]:
        with pytest.raises(UserError, match=message):
            build(root, tmp_path / "run", *overrides)


def test_test_images_among_the_training_images_stop_the_run(root, tmp_path):
    leaked = cv2.rotate(picture(34, 38, seed=80), cv2.ROTATE_90_CLOCKWISE)
    write_image(root / "WED" / "HR" / "a copy.png", leaked)
    write_image(root / "Set5" / "HR" / "0.png", picture(34, 38, seed=80))
    message = r"WED/HR/a copy\.png is the test image Set5/0 \(.*Set5/HR/0\.png\).*data\.allow_test_images=\[Set5\] .*\[Set5/0\]"
    for packed in (False, True):
        with pytest.raises(UserError, match=message):
            build(root, tmp_path / "run", "data=mixture", "data.sets=[BSDS400,WED]", "data.val=sample")
        if not packed:
            pack_set("WED", root, None, None, lambda *_: None)
    with pytest.raises(UserError, match=message):  # validation sets are compared like test sets
        build(root, tmp_path / "run", "data=mixture", "data.sets=[WED]", "test_sets=[sample]", "data.val=Set5")
    for allowed in ("Set5", "Set5/0"):
        build(root, tmp_path / "run", "data=mixture", "data.sets=[WED]", f"data.allow_test_images=[{allowed}]")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_vanishes_is_named_and_the_step_reached_is_saved(root, tmp_path, workers):
    """After the file is restored, the run resumes and ends with the weights of an uninterrupted one."""
    # More steps than the workers can have prefetched when the file disappears.
    overrides = ["data=bsds400", "trainer.max_steps=40", "data.cache_gb=0", f"data.workers={workers}", "checkpoint_every=100"]
    build(root, tmp_path / "whole", *overrides).execute(Console(quiet=True))

    run = build(root, tmp_path / "run", *overrides)
    file = root / "BSDS400" / "HR" / "2.png"
    shown = io.StringIO()
    train_step = run.module.training_step

    def take_away(batch, batch_idx):
        if batch_idx == 1:
            file.rename(tmp_path / "2.png")
        return train_step(batch, batch_idx)

    run.module.training_step = take_away  # type: ignore[method-assign]
    with pytest.raises(UserError, match=rf"\A{file}: no such file\Z"):
        run.execute(Console(file=shown, width=200))
    step = checkpoint(tmp_path / "run")["global_step"]
    assert 2 <= step < 40
    assert re.search(rf"stopped .*at step {step}\b.*to resume.*: python train\.py resume=", shown.getvalue())
    (tmp_path / "2.png").rename(file)
    build(root, tmp_path / "run", *overrides, f"resume={tmp_path / 'run'}").execute(Console(quiet=True))
    assert checkpoint(tmp_path / "run")["global_step"] == 40
    assert same_weights(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "run"))


def test_pairs_of_a_known_set_train_deraining_and_nothing_else(root, tmp_path):
    """Deraining uses Rain13K's rainy images, packed or not; denoising adds noise to the clean ones."""
    for place, seed in (("Rain13K/target", 1), ("Rain13K/input", 2), ("Rain100L/target", 3), ("Rain100L/input", 4)):
        (root / place).mkdir(parents=True)
        for i in range(2):
            write_image(root / place / f"{i}.png", picture(40, 60, seed=10 * seed + i))
    rainy = {picture(40, 60, seed=20 + i).tobytes() for i in range(2)}
    for source in ("folder", "packed"):
        run = build(root, tmp_path / "run", "data=rain13k", "task=derain", "test_sets=[Rain100L]")
        assert f"rain13k, 2 images, {source}, LQ from files" in run.summary["data"]
        images = run.data.samples.images
        assert {images.lq(i).tobytes() for i in range(2)} == rainy
        run = build(root, tmp_path / "run", "data=rain13k", "task=denoise_color_25")
        assert f"rain13k, 2 images, {source}, LQ made on the fly" in run.summary["data"]
        assert run.data.samples.images.lq(0) is None
        pack_set("Rain13K", root, None, None, lambda *_: None)
