"""Decisions of the guard that stay on the device: the same bits as those of the host, read a step later, and no other read in a step.

The CPU stands in for a GPU here: fused optimizers follow the same protocol on it.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from test_guard import TWO_PROCESSES, Spoiled, guard_of
from tiny import build, logged, train
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from irformer.errors import UserError
from irformer.training.callbacks import display, guard
from irformer.training.callbacks.guard import Guard
from irformer.training.callbacks.saving import Ema
from irformer.training.host_copies import HostCopy
from irformer.training.run import Run

FUSED = "+optim.optimizer.fused=true"
SGD = ["optim.optimizer._target_=torch.optim.SGD", "~optim.optimizer.betas", "+optim.optimizer.momentum=0.9"]


@pytest.fixture
def device_decides(monkeypatch):
    """Treat the CPU as a device whose work is queued."""
    monkeypatch.setattr(Guard, "queued_devices", ("cpu",))


def spoiled_run(folder: Path, bad: set[int], *words: str, kind: str = "everything") -> Run:
    run = build(folder, FUSED, *words)
    run.module.loss = Spoiled(bad, kind)
    return run


def checkpoint(run: Run) -> dict[str, Any]:
    """Return the last checkpoint without what tells a resumed run from an uninterrupted one."""
    state = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    return {name: value for name, value in state.items() if name not in ("irformer_resume", "loops", "epoch")}


def assert_same(a: Any, b: Any, place: str = "") -> None:
    assert type(a) is type(b), place
    if isinstance(a, dict):
        assert list(a) == list(b), place
        for name, value in a.items():
            assert_same(value, b[name], f"{place}.{name}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), place
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{place}[{i}]")
    else:
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, place


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("everything", []),
        ("loss alone", ["optim=adamw"]),
        ("gradient alone", ["optim=adamw", "trainer.accumulate_grad_batches=2"]),
        ("everything", [*SGD, "norm=batch"]),
        ("everything", ["trainer.gradient_clip_val=0.1"]),
        ("loss alone", ["trainer.precision=bf16"]),
    ],
)
def test_the_device_decides_like_the_host(tmp_path, monkeypatch, kind, words):
    """Also at the first step, and with the checkpoint of the step after which nothing has been read."""
    bad = {0, 3, 4, 7} if "trainer.accumulate_grad_batches=2" not in words else {0, 6, 8, 14}
    runs = {}
    for device in ("cpu", "cuda"):  # `cuda` is not the device here, so the host decides
        monkeypatch.setattr(Guard, "queued_devices", (device,))
        runs[device] = run = spoiled_run(tmp_path / device, bad, *words, "trainer.max_steps=8", kind=kind)
        decisions: list[Any] = []
        run.trainer.callbacks.append(Watch(lambda run=run, decisions=decisions: decisions.append(guard_of(run).skips)))
        train(run)
        assert [bool(decision) for decision in decisions] == [step in (0, 3, 4, 7) for step in range(8)]
        # Step 0 is bad, and the optimizer takes its first step at 1: until then, the host decides.
        assert [isinstance(decision, Tensor) for decision in decisions] == [device == "cpu" and step > 1 for step in range(8)]
    assert_same(checkpoint(runs["cpu"]), checkpoint(runs["cuda"]))
    for name in ("train/loss", "train/grad_norm", "train/skipped_steps"):
        assert str(logged(runs["cpu"], name)) == str(logged(runs["cuda"], name))
    assert logged(runs["cpu"], "train/skipped_steps") == [1, 1, 1, 2, 3, 3, 3, 4]


class Watch(lightning.Callback):
    """Calls a function at the end of each step, or of each batch where several are accumulated."""

    def __init__(self, look: Any) -> None:
        self.look = look
        self.step = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            self.look()


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_bad_step_changes_nothing(tmp_path, device_decides, optimizer):
    run = spoiled_run(tmp_path, {2}, f"optim={optimizer}", "norm=batch", "trainer.max_steps=4")
    ema = next(callback for callback in run.trainer.callbacks if isinstance(callback, Ema))
    states: list[dict[str, Any]] = []

    def look() -> None:
        assert ema._average_model is not None
        state = {
            "weights and statistics": run.module.state_dict(),
            "average": ema._average_model.state_dict(),
            "optimizer": run.trainer.optimizers[0].state_dict()["state"],
        }
        states.append(clone(state))

    run.trainer.callbacks.append(Watch(look))
    train(run)
    assert {"step", "exp_avg", "exp_avg_sq"} == set(states[0]["optimizer"][0])
    assert any("running_mean" in name for name in states[0]["weights and statistics"])
    assert_same(states[2], states[1])
    for part in states[0]:
        with pytest.raises(AssertionError):
            assert_same(states[3][part], states[2][part])
    assert not hasattr(run.trainer.optimizers[0], "found_inf")


def clone(value: Any) -> Any:
    return {name: clone(inner) for name, inner in value.items()} if isinstance(value, dict) else value.clone()


def test_a_run_resumed_after_a_bad_step_equals_an_uninterrupted_one(tmp_path, device_decides):
    whole = train(spoiled_run(tmp_path / "whole", {2, 3}, "trainer.max_steps=6"))
    first = train(spoiled_run(tmp_path, {2}, "trainer.max_steps=3"))
    counters = next(state for name, state in checkpoint(first)["callbacks"].items() if name.startswith("Guard"))
    assert counters == {"skipped": 1, "skipped_step": 3, "in_a_row": 1}  # of the step that has just ended
    resumed = build(tmp_path, FUSED, "trainer.max_steps=6", f"resume={first.folder}")
    resumed.module.loss = Spoiled({0})
    train(resumed)
    assert_same(checkpoint(resumed), checkpoint(whole))
    assert guard_of(whole).skipped == guard_of(resumed).skipped == 2


@pytest.mark.parametrize("every", [1, 4])
def test_a_run_of_bad_steps_ends_at_the_step_that_exhausts_the_patience(tmp_path, monkeypatch, caplog, every):
    """Its name, its warnings and its diagnosis are those of the host's decision, whether or not a checkpoint reads the decision first."""
    monkeypatch.chdir(tmp_path)
    bad = {1, 2, 4, 6, 7, 8}
    messages, warnings = [], []
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(Guard, "queued_devices", (device,))
        words = ["trainer.max_steps=20", f"checkpoint_every={every}", "callbacks.guard.patience=3"]
        run = spoiled_run(tmp_path / device, bad, *words)
        caplog.clear()
        with pytest.raises(UserError) as caught:
            train(run)
        messages.append(str(caught.value).replace(f"{device}/run", "run"))
        warnings.append([record.message for record in caplog.records if "skipped" in record.message])
        assert checkpoint(run)["global_step"] == 8  # the last step before the end that is saved
    assert messages[0] == messages[1]
    assert messages[0].startswith("step 9: loss nan, gradient norm nan, the last of 3 consecutive steps")
    assert warnings[0] == warnings[1]
    assert [warning.split(":")[0] for warning in warnings[0]] == ["step 2", "step 5", "step 7"]


def test_the_last_step_may_exhaust_the_patience(tmp_path, device_decides):
    run = spoiled_run(tmp_path, {2, 3}, "trainer.max_steps=4", "callbacks.guard.patience=2")
    with pytest.raises(UserError, match=r"^step 4: loss nan"):
        train(run)


@pytest.mark.slow
def test_all_processes_decide_alike_on_the_device(tmp_path):
    script = tmp_path / "two.py"
    text = textwrap.dedent(TWO_PROCESSES).replace('"trainer.max_steps=9"', f'"trainer.max_steps=9", "{FUSED}"')
    assert text.count(FUSED) == 1
    script.write_text(f"from irformer.training.callbacks.guard import Guard\nGuard.queued_devices = ('cpu',)\n{text}")
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, script, tmp_path], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=300
    )
    assert (tmp_path / "1.json").is_file(), done.stderr
    first, second = ((tmp_path / f"{rank}.json").read_text() for rank in range(2))
    assert first == second
    assert '"step 6: loss nan, gradient norm ' in first
    assert '"skipped": 3' in first


class Reads(TorchDispatchMode):
    """Counts the values that Python reads from tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_only_a_logged_step_reads_from_the_device(tmp_path, monkeypatch, device_decides):
    """With all callbacks, accumulated batches and a line of progress after each step."""
    words = ["trainer.log_every_n_steps=4", "callbacks.probe={_target_: irformer.training.callbacks.probe.Probe, every: 4, images: 2}"]
    run = build(tmp_path, FUSED, *words, "trainer.max_steps=12", "callbacks.progress.line_seconds=0", "trainer.accumulate_grad_batches=2")
    run.module.loss = Spoiled({12})
    reads = Reads()
    new: set[int] = set()  # copies of values that this batch has computed

    class Watched(HostCopy):
        def __init__(self, values: Tensor) -> None:
            super().__init__(values)
            new.add(id(self))

        def read(self) -> list[float]:
            reads.count += id(self) in new
            with monkeypatch.context() as plain:
                plain.setattr(Tensor, "tolist", tolist)
                return super().read()

    tolist = Tensor.tolist

    def counting(function: Any) -> Any:
        def call(values: Tensor, *arguments: Any, **named: Any) -> Any:
            reads.count += values.is_floating_point()  # the indices of samples are read before they are moved to the device
            return function(values, *arguments, **named)

        return call

    for module in (guard, display):
        monkeypatch.setattr(module, "HostCopy", Watched)
    for name in ("tolist", "numpy", "cpu"):
        monkeypatch.setattr(Tensor, name, counting(getattr(Tensor, name)))
    loop = run.trainer.fit_loop.epoch_loop
    advance = loop.advance
    counts: dict[int, int] = {}

    def watched(fetcher: Any) -> None:
        before = reads.count
        new.clear()
        with reads:
            advance(fetcher)
        step = (run.trainer.fit_loop.epoch_loop.batch_progress.total.ready + 1) // 2
        counts[step] = counts.get(step, 0) + reads.count - before

    monkeypatch.setattr(loop, "advance", watched)
    train(run)
    # The host decides about the first step. Step 12 is the last.
    assert [step for step, count in sorted(counts.items()) if count] == [1, 4, 8, 12]
    assert guard_of(run).skipped == 1
