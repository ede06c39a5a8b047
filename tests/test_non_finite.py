"""A network whose output is NaN or infinite: reported with the image's name, never written, measured or kept as the best."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from conftest import picture
from data.test_samples import super_resolution
from rich.console import Console
from torch import nn
from training.test_data import TINY

from irformer.config.compose import compose
from irformer.data.test_sets import find_test_set
from irformer.errors import UserError
from irformer.evaluation.evaluate import evaluate, evaluate_image
from irformer.evaluation.restorers import NetworkRestorer
from irformer.imaging.images import write_image
from irformer.training.build import build_run


class Spoiled(nn.Module):
    """Enlarges by repetition; the given number of values is replaced."""

    scale = 2
    size_multiple = 1
    test_padding = "reflect_min"

    def __init__(self, value: float, count: int) -> None:
        super().__init__()
        self.value = value
        self.count = count

    def forward(self, x):
        out = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        out.view(-1)[: self.count] = self.value
        return out


MESSAGE = (
    "{} of 5,760 values of the restored image are NaN or infinite, expected finite numbers: the weights are damaged, or the precision is "
    "too low; use other weights, or compute in float32"
)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("count", [1, 5760])
def test_output_that_is_not_finite_is_reported(tmp_path, attempts, value, count):
    (tmp_path / "val").mkdir()
    write_image(tmp_path / "val" / "a.png", picture(40, 48))
    restorer = NetworkRestorer(Spoiled(value, count), "network")
    test_set = find_test_set(str(tmp_path / "val"), tmp_path, super_resolution())
    for where, measure in [
        ("", lambda: restorer(test_set[0].lq)),
        ("a: ", lambda: evaluate_image(restorer, test_set[0], test_set.task)),
        ("val/a: ", lambda: evaluate(restorer, test_set)),
    ]:
        with pytest.raises(UserError) as raised:
            measure()
        assert str(raised.value) == where + MESSAGE.format(f"{count:,}")
        attempts.refused("data sets")
    assert np.array_equal(NetworkRestorer(Spoiled(value, 0), "network")(test_set[0].lq), test_set[0].lq.repeat(2, 0).repeat(2, 1))
    attempts.handled("data sets")


@pytest.fixture
def run(tmp_path):
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        for i in range(2):
            write_image(tmp_path / folder / f"{i}.png", picture(40, 48, seed=10 * len(folder) + i))
    paths = [f"data.path={tmp_path / 'train'}", f"data.val={tmp_path / 'val'}", f"test_sets=[{tmp_path / 'val'}]", f"paths.data={tmp_path}"]
    steps = ["trainer.max_steps=3", "trainer.val_check_interval=1", "optim.ema=null", "logger=tensorboard"]
    built = build_run(compose("train", [*TINY, "data=folder", *paths, *steps, "logger=csv"]), tmp_path / "run")
    # The images of validation are spoiled at some steps, as a diverging network may spoil them.
    spoil, forward = [], built.module.network.forward

    def spoiling(x):
        out = forward(x)
        return out * float("nan") if not built.module.training and built.trainer.global_step in spoil else out

    built.module.network.forward = spoiling
    return built, spoil


def test_a_validation_that_is_not_finite_is_reported_and_never_the_best_and_training_goes_on(run, tmp_path, attempts, caplog):
    built, spoil = run
    spoil.append(2)
    built.execute(Console(quiet=True))
    warnings = [record.message for record in caplog.records if "validation at step" in record.message]
    assert warnings == [
        "validation at step 2: the network's output is NaN or infinite; the metrics are nan, and this validation is not the best"
    ]
    rows = csv.DictReader((tmp_path / "run" / "metrics.csv").open())
    values = [float(row["value"]) for row in rows if row["name"] == "val/psnr_y"]
    assert [np.isfinite(value) for value in values] == [True, False, True]
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert record["step"] in (1, 3)
    assert all(np.isfinite(value) for value in record["test_sets"]["val"]["metrics"].values())
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    attempts.handled("data sets")


def test_a_run_without_any_finite_validation_ends_in_one_line(run, tmp_path, attempts):
    built, spoil = run
    spoil += [1, 2, 3]
    with pytest.raises(UserError) as raised:
        built.execute(Console(quiet=True))
    assert re.fullmatch(r".*best\.safetensors.*", str(raised.value))
    assert not (tmp_path / "run" / "results.json").exists()
    attempts.refused("data sets")
