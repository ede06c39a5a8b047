"""Validation costs at most a tenth of the training in between, on images that the configuration alone determines."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from tiny import build, logged, train

from irformer.config.compose import compose, options
from irformer.data.stages import Stages
from irformer.data.test_sets import TestSet, evenly_spaced
from irformer.errors import UserError
from irformer.training.recipe import training_stages
from irformer.training.validation_images import choose_images, pixel_budget

CBSD68 = [481 * 321] * 68


def chosen(pixels: list[int], steps: int, batch: int = 32, patch: int = 48) -> list[int]:
    """Return the indices that `auto` chooses from images of these LQ pixels."""
    test_set = TestSet.__new__(TestSet)
    test_set.name = "set"
    test_set.pairs = test_set.headers = list(range(len(pixels)))  # type: ignore[assignment]
    test_set.lq_pixels = pixels
    return choose_images(test_set, "auto", Stages.constant(patch, batch), steps).chosen.pairs  # type: ignore[return-value]


def test_images_are_evenly_spaced():
    assert evenly_spaced(1, 68) == [34]
    assert evenly_spaced(3, 68) == [11, 34, 56]
    assert evenly_spaced(2, 5) == [1, 3]
    for count in range(1, 30):
        assert evenly_spaced(count, count) == list(range(count))
        for number in range(1, count + 1):
            indices = evenly_spaced(number, count)
            assert indices == sorted(set(indices))
            assert 0 <= indices[0] <= count - 1 - indices[-1] + 1  # as far from the start as from the end


def test_validation_costs_a_tenth_of_the_steps_in_between():
    # 100 steps of 32 patches of 48x48 are 7.4 megapixels, three passes each; a tenth of that are 14.3 images of CBSD68.
    assert pixel_budget(Stages.constant(48, 32), 100) == 2_211_840
    assert chosen(CBSD68, 100) == evenly_spaced(14, 68)
    assert chosen(CBSD68, 1) == [34]  # one image at least
    assert chosen(CBSD68, 500) == list(range(68))
    # An odd number of images would include the large one.
    assert chosen([10, 10, 1000, 10, 10], 1, batch=4, patch=6) == [0, 1, 3, 4]
    assert chosen([10, 10, 1000, 10, 10], 1, batch=3, patch=6) == [1, 3]


def test_the_stage_with_the_fewest_pixels_counts():
    stages = Stages([10, 10, 10], [16, 32, 8], [8, 1, 16])
    assert pixel_budget(stages, 10) == 3 * 10 * 1024 // 10


@pytest.mark.parametrize("experiment", [name for name in options("experiment") if not name.startswith(("figure1", "lab_", "swinir_tiny"))])
def test_published_recipes_validate_on_all_images(experiment):
    cfg = compose("train", [f"experiment={experiment}"])
    assert cfg.data.val_images == "auto"
    budget = pixel_budget(training_stages(cfg), cfg.trainer.val_check_interval)
    assert budget >= 100 * 481 * 321 // cfg.task.scale**2  # B100 and CBSD68; Set5 is smaller


def test_the_run_says_what_it_validates_on_and_measures_the_whole_set(tmp_path):
    words = ["data.val_images=auto", "trainer.max_steps=2", "test_sets=[sample]"]
    run = build(tmp_path, *words)
    assert run.summary["validation"] == "1 of 2 images of corners (data.val_images=auto); all of them at the end"
    assert [test_set.name for test_set in run.test_sets] == ["sample", "corners"]
    run.execute(Console(quiet=True))
    results = json.loads((run.folder / "results.json").read_text())
    assert results["validation"] == {"set": "corners", "val_images": "auto", "images": 1, "of": 2}
    corners = results["test_sets"]["corners"]
    assert (corners["images"], len(results["test_sets"])) == (2, 2)
    # Only the final weights were validated, on the second image: index floor(1/2 * 2 / 1).
    assert logged(run, "val/psnr_y") == [pytest.approx(corners["per_image"]["hat"]["psnr_y"], abs=1e-4)]
    for name, value in run.summary.items():
        assert value in (run.folder / "report.html").read_text() or name != "validation"


def test_the_whole_set_is_measured_once(tmp_path):
    run = build(tmp_path, "data.val_images=1", "trainer.max_steps=2")  # it is among the test sets
    assert [test_set.name for test_set in run.test_sets] == ["corners"]
    run = build(tmp_path, "data.val_images=2", "trainer.max_steps=2", "test_sets=[sample]")
    assert [test_set.name for test_set in run.test_sets] == ["sample"]
    assert run.summary["validation"] == "all 2 images of corners (data.val_images=2)"


def test_a_second_set_of_the_same_name_keeps_its_own_results():
    def test_set(folder: str, count: int) -> TestSet:
        made = TestSet.__new__(TestSet)
        made.name = "val"
        made.pairs = [SimpleNamespace(hq=Path(folder, f"{i}.png")) for i in range(count)]  # type: ignore[misc]
        made.headers, made.lq_pixels = [None] * count, [100] * count  # type: ignore[list-item]
        return made

    images = choose_images(test_set("a", 3), 1, Stages.constant(8, 1), 1)
    assert [one.name for one in images.measured_at_the_end([test_set("b", 2)])] == ["val", "val (validation)"]
    assert images.whole.name == images.chosen.name == "val"


def test_more_images_than_the_set_has_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"^data\.val_images=3: corners has 2 images; expected at most 2, or all$"):
        build(tmp_path, "data.val_images=3")


def test_the_best_weights_of_other_images_do_not_stand(tmp_path, caplog):
    """A score on an easy image would otherwise keep all later weights from being the best."""
    first = train(build(tmp_path, "data.val_images=1", "trainer.max_steps=2"))
    resumed = build(tmp_path, "data.val_images=2", "trainer.max_steps=3", f"resume={first.folder}")
    best = next(callback for callback in resumed.trainer.callbacks if type(callback).__name__ == "BestWeights")
    before = (resumed.folder / "checkpoints" / "best.safetensors").read_bytes()
    train(resumed)
    assert "validates on other images than before (2 instead of 1)" in caplog.text
    assert best.best == pytest.approx(logged(resumed, "val/psnr_y")[-1], abs=1e-4)
    assert (resumed.folder / "checkpoints" / "best.safetensors").read_bytes() != before
    caplog.clear()
    again = train(build(tmp_path, "data.val_images=2", "trainer.max_steps=4", f"resume={first.folder}"))
    assert again.trainer.global_step == 4
    assert "other images" not in caplog.text
