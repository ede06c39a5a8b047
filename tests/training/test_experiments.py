"""An experiment never deletes: what is finished is never trained again, what was interrupted is resumed, what is different is refused."""

import io
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console
from small_runs import NETWORK, context, finish, write_photos

from irformer.dynamics.statistics import STATISTICS
from irformer.errors import UserError
from irformer.experiments.figure1_demo import reproduce_figure1
from irformer.training.module import RestorationModule

SMALL = ["trainer.max_steps=4", "callbacks.probe.every=2", "batch_size=1", "patch_size=16", "logger=csv", "trainer=cpu"]
SMALL += ["checkpoint_every=1", "trainer.val_check_interval=4", "callbacks.monitor=null", *NETWORK[1:]]  # the monitor records times
WRITTEN = ("figure1.png", "dynamics.csv", "results.json", "report.html")


def _reproduce(out: Path, *overrides: str) -> str:
    """Run the comparison, measured on two corners of a photo; gives what was printed."""
    photos = out.parent / "photos"
    if not photos.is_dir():
        photos.mkdir()
        write_photos(photos, 2)
    printed = io.StringIO()
    words = [*SMALL, f"data.val={photos}", f"test_sets=[{photos}]", *overrides]
    reproduce_figure1(out, words, Console(file=printed, width=200))
    return printed.getvalue()


def _reproduce_and_die(out: Path, steps: int) -> None:
    """In a process of its own: SIGKILL in the middle of a training step."""
    whole_step = RestorationModule.training_step
    left = iter(range(steps))

    def training_step(self, batch, batch_idx):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole_step(self, batch, batch_idx)

    RestorationModule.training_step = training_step  # type: ignore[method-assign]
    torch.set_num_threads(1)
    _reproduce(out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A comparison that nothing has interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    _reproduce(out)
    return out


@pytest.fixture
def trained(monkeypatch) -> list[int]:
    """The steps that are trained from now on."""
    steps: list[int] = []
    whole_step = RestorationModule.training_step

    def training_step(self, batch, batch_idx):
        steps.append(self.trainer.global_step)
        return whole_step(self, batch, batch_idx)

    monkeypatch.setattr(RestorationModule, "training_step", training_step)
    return steps


def _state(arm: Path) -> dict[str, torch.Tensor]:
    return torch.load(arm / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"]


def test_the_comparison_leaves_figure_page_and_numbers(whole):
    assert (whole / "figure1.png").stat().st_size > 10_000
    arms = json.loads((whole / "results.json").read_text())["arms"]
    assert list(arms) == ["ln", "control", "iln"]
    header, *rows = (whole / "dynamics.csv").read_text().splitlines()
    assert header == "arm,step,layer,name,statistic,value,kind,source"
    groups = [row for row in rows if row.endswith(",groups,probe")]
    assert len(groups) == 3 * 3 * len(STATISTICS)  # arms, probes (0, 2, 4), statistics of the one group
    page = (whole / "report.html").read_text()
    assert page.count("data:image/png;base64") == 1  # the figure
    assert page.count("data:image/webp;base64") == 2 * 5  # two photos: bicubic, three arms and the truth
    for arm in arms.values():
        assert arm["metrics"]["psnr_y"] > 5


def test_finished_arms_are_taken_as_they_are(whole, trained):
    """The second run trains nothing and writes the same bytes again."""
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for arm in ("ln", "control", "iln") for file in _files(whole / arm)}
    written = {name: (whole / name).read_bytes() for name in WRITTEN}
    for name in WRITTEN:
        (whole / name).unlink()
    printed = _reproduce(whole)
    assert trained == []
    assert printed.count("complete: ") == 3
    assert {name: (whole / name).read_bytes() for name in WRITTEN} == written
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in before} == before


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if file.is_file()]


def test_a_killed_comparison_goes_on_where_it_was(whole, tmp_path, trained):
    """SIGKILL in the second arm's third step: the first is not trained again, the second is resumed, and the bits are the same."""
    process = context.Process(target=_reproduce_and_die, args=(tmp_path / "out", 6))
    process.start()
    assert finish(process) == -signal.SIGKILL
    out = tmp_path / "out"
    assert (out / "ln" / "results.json").is_file()
    assert not (out / "iln").exists()
    printed = _reproduce(out)
    assert trained == [2, 3, 0, 1, 2, 3]  # the rest of the control, and all of i-LN
    assert printed.count("complete: ") == printed.count("resumed: ") == 1
    for name in ("dynamics.csv", "results.json", "figure1.png"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    for arm in ("ln", "control", "iln"):
        expected = _state(whole / arm)
        assert all(torch.equal(value, expected[name]) for name, value in _state(out / arm).items())
        assert (out / arm / "results.json").read_bytes() == (whole / arm / "results.json").read_bytes()


def test_an_arm_of_another_configuration_is_refused_and_stays(whole, trained):
    before = {file: file.read_bytes() for file in _files(whole)}
    line = r"ln contains a run with another configuration: optim\.lr is 0\.001 there and 0\.5 here; out=FOLDER starts the comparison"
    with pytest.raises(UserError, match=line):
        _reproduce(whole, "optim.lr=0.5")
    assert trained == []
    assert {file: file.read_bytes() for file in _files(whole)} == before
