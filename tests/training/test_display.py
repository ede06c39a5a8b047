"""Display of a run: logged values, time shares, images, and Weights & Biases only if it is installed."""

import importlib.util
import io
import re
from collections import Counter
from types import SimpleNamespace

import cv2
import lightning
import numpy as np
import pytest
import torch
from conftest import picture
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import build, logged, train

from irformer.data.samples import TrainingSamples
from irformer.data.test_sets import TestPair
from irformer.errors import UserError
from irformer.training.callbacks import monitor, validation_crops
from irformer.training.callbacks.display import Progress
from irformer.training.callbacks.monitor import Monitor
from irformer.training.callbacks.validation_crops import ValidationCrops, detailed_crop
from irformer.training.run import Run


class Time:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: Counter[str] = Counter()

    def monotonic(self) -> float:
        return self.now

    def passes(self, seconds: float, owner: object, method: str) -> None:
        """Advance the clock by some seconds at each call of a method."""
        original = getattr(owner, method)

        def timed(*args, **kwargs):
            self.now += seconds
            self.calls[method] += 1
            return original(*args, **kwargs)

        setattr(owner, method, timed)


class SlowSamples(torch.utils.data.Dataset):
    """Training samples that each take some seconds of the loading process."""

    def __init__(self, samples: TrainingSamples, seconds: float, time: Time) -> None:
        self.samples, self.seconds, self.time = samples, seconds, time
        self.task, self.seed = samples.task, samples.seed

    def __getitem__(self, index):
        self.time.now += self.seconds
        return self.samples[index]


def timed_run(tmp_path, monkeypatch, *words: str) -> Run:
    """A sample takes 0.5 s, a training batch 3 s, a validation image 2 s, a probe 0.25 s, a checkpoint 1 s."""
    time = Time()
    monkeypatch.setattr(monitor, "time", time)
    run = build(tmp_path, "trainer.max_steps=4", "checkpoint_every=2", "trainer.val_check_interval=2", *words)
    run.data.samples = SlowSamples(run.data.samples, 0.5, time)
    time.passes(3, run.module, "training_step")
    time.passes(2, run.module, "validation_step")
    time.passes(1, run.trainer.strategy, "save_checkpoint")
    monkeypatch.setattr("irformer.training.callbacks.probe.measure", lambda *_: setattr(time, "now", time.now + 0.25) or [])
    return run


def monitor_of(run: Run) -> Monitor:
    return next(callback for callback in run.trainer.callbacks if isinstance(callback, Monitor))


PROBE = ["+callbacks.probe._target_=irformer.training.callbacks.probe.Probe", "+callbacks.probe.every=2", "+callbacks.probe.images=1"]


def test_each_second_is_counted_once_and_in_its_place(tmp_path, monkeypatch):
    """4 steps of 2 samples: 4 s of data wait, 12 s of training, 3 probes, 2 validations of 2 images, and checkpoints of 1 s."""
    run = train(timed_run(tmp_path, monkeypatch, "callbacks.probe={}", *PROBE))
    checkpoints = monitor.time.calls["save_checkpoint"]
    assert checkpoints >= 2
    total = 4 + 12 + 3 * 0.25 + checkpoints + 2 * 4
    assert monitor_of(run).closing_lines() == [
        f"time {total:.0f} s: training {1200 / total:.1f} %, data wait {400 / total:.1f} %, validation {800 / total:.1f} %, "
        f"probe {75 / total:.1f} %, checkpoints {100 * checkpoints / total:.1f} %"
    ]
    record = monitor_of(run).closing_record()["time"]
    assert record["seconds"] == pytest.approx(total, abs=0.06)  # one decimal
    assert record["shares"]["probe"] == pytest.approx(0.75 / total, abs=1e-4)
    assert sum(record["shares"].values()) == pytest.approx(1, abs=1e-3)
    # A step waits for two samples and trains for 3 s, on two patches of 32 x 32 HQ pixels. Nothing else between steps takes time.
    assert logged(run, "train/data_wait_share") == pytest.approx([1 / 4] * 4)
    assert logged(run, "train/megapixels_per_second") == pytest.approx([2 * 32 * 32 / 1e6 / 4] * 4, rel=1e-6)


def test_accumulated_batches_count_into_one_step_and_intervals_are_whole(tmp_path, monkeypatch):
    words = ["trainer.accumulate_grad_batches=2", "trainer.log_every_n_steps=2", "task=sr_x3"]
    run = train(timed_run(tmp_path, monkeypatch, *words))
    assert logged(run, "train/megapixels_per_second") == pytest.approx([2 * 2 * 48 * 48 / 1e6 / (2 * (2 * 0.5 + 2 * 3))] * 2, rel=1e-6)
    assert logged(run, "train/data_wait_share") == pytest.approx([1 / 7] * 2)


def test_workers_that_read_ahead_take_nothing(tmp_path, monkeypatch):
    """The samples take their time in the worker, so the training process does not wait."""
    run = train(timed_run(tmp_path, monkeypatch, "data.workers=1"))
    assert logged(run, "train/data_wait_share") == [0, 0, 0, 0]
    assert "data wait 0.0 %" in monitor_of(run).closing_lines()[0]


def test_validation_that_starves_the_run_is_told_with_the_keys(tmp_path, monkeypatch, caplog):
    run = timed_run(tmp_path, monkeypatch)
    monitor.time.passes(30, run.module, "validation_step")
    console = Console(record=True, width=300, file=io.StringIO())
    run.execute(console)
    warning = (
        r"validation takes 8\d % of the time: increase trainer.val_check_interval, or validate on fewer images by data.val_images=NUMBER"
    )
    assert [bool(re.match(warning, record.message)) for record in caplog.records if "validation takes" in record.message] == [True]
    lines = console.export_text().splitlines()
    assert lines[-2].startswith("time 1")
    assert lines[-1].startswith("validation takes")


@pytest.mark.parametrize(
    ("device", "steps", "done", "noted"),
    [("cpu", 500_000, 0, 1), ("cpu", 500_000, 490_000, 0), ("cpu", 49_999, 0, 0), ("cuda", 500_000, 0, 0), ("meta", 500_000, 0, 0)],
)
def test_a_long_run_on_a_cpu_is_noted_at_its_start(device, steps, done, noted, capsys):
    strategy = SimpleNamespace(root_device=torch.device(device))
    progress = Progress()
    progress.on_train_start(SimpleNamespace(max_steps=steps, global_step=done, strategy=strategy), None)
    assert capsys.readouterr().out == noted * (
        "note: 500,000 steps take days on a CPU with a tiny network and years with a published one; for a first look: "
        "model=swinir_tiny debug=fast (seconds), make demo (minutes), or fewer steps by trainer.max_steps=NUMBER\n"
    )


def test_only_the_first_process_notes_it(capsys):
    progress = Progress()
    progress.disable()
    progress.on_train_start(SimpleNamespace(max_steps=500_000, global_step=0, strategy=None), None)
    assert capsys.readouterr().out == ""


def test_each_line_shows_the_loss_of_its_own_step(tmp_path, capsys):
    """Although it is printed a step later."""
    run = train(build(tmp_path, "trainer.max_steps=5", "trainer.val_check_interval=2", "callbacks.progress.line_seconds=0"))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == [f"{step}/5" for step in range(1, 6)]
    assert [line.partition("loss ")[2].split()[0] for line in lines] == [f"{loss:.4f}" for loss in logged(run, "train/loss")]
    assert ["val/psnr_y" in line for line in lines] == [False, False, True, True, True]  # step 2 is shown before its validation


def test_losses_are_logged_in_every_nth_step_and_the_last(tmp_path):
    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer, *arguments):
            trainer.should_stop = trainer.should_stop or trainer.global_step == 6

    every = train(build(tmp_path / "every", "trainer.max_steps=10"))
    run = train(build(tmp_path, "trainer.max_steps=10", "trainer.log_every_n_steps=4"))
    stopped = build(tmp_path / "stopped", "trainer.max_steps=10", "trainer.log_every_n_steps=4")
    stopped.trainer.callbacks.append(Stop())
    train(stopped)
    for name in ("train/loss", "train/grad_norm", "train/skipped_steps"):
        values = logged(every, name)
        assert logged(run, name) == [values[3], values[7], values[9]]
        assert logged(stopped, name) == [values[3]]  # not again at step 6, which Lightning also logs


def test_numbers_that_are_always_logged(tmp_path):
    run = train(build(tmp_path, "trainer.max_steps=2", "logger=tensorboard", "optim.lr=1e-3", "trainer.gradient_clip_val=1e-3"))
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    names = {"train/loss", "train/grad_norm", "train/skipped_steps", "train/megapixels_per_second", "train/data_wait_share"}
    assert {*names, "train/memory_gib", "lr-Adam", "val/psnr_y"} <= set(events.Tags()["scalars"])
    for name in names:
        assert [event.value for event in events.Scalars(name)] == pytest.approx(logged(run, name), rel=1e-6)
    assert logged(run, "lr-Adam") == [1e-3, 1e-3]
    assert min(logged(run, "train/grad_norm")) > 1e-2  # before clipping
    assert 0.1 < logged(run, "train/memory_gib")[-1] < 100


def images(folder, tag: str) -> dict[int, np.ndarray]:
    """The images of a tag in TensorBoard's event file, by step."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    decoded = {
        image.step: cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), cv2.IMREAD_COLOR) for image in events.Images(tag)
    }
    return {step: image[..., ::-1] for step, image in decoded.items()}


class WandbCalls(WandbLogger):
    """Stands for Weights & Biases, whose package need not be installed: it records what it is asked to log."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, int], np.ndarray] = {}

    def log_image(self, key, images, step=None, **_):
        (image,) = images
        self.calls[key, step] = np.array(image)


class Pairs(list):
    """Validation images of a task."""

    def __init__(self, pairs: list[TestPair]) -> None:
        super().__init__(pairs)
        self.pairs = self
        self.task = SimpleNamespace(channels=pairs[0].hq.shape[2])


def validate(
    callback: ValidationCrops, pairs: Pairs, restored: dict[int, np.ndarray], loggers: list, step: int, rank: int = 0, of: int = 1
) -> None:
    """One validation as a process sees it: every image of its share, then the end."""
    trainer = SimpleNamespace(
        is_global_zero=rank == 0,
        global_rank=rank,
        world_size=of,
        loggers=loggers,
        global_step=step,
        datamodule=SimpleNamespace(validation=pairs),
    )
    module = SimpleNamespace(device=torch.device("cpu"))
    callback.on_validation_start(trainer, module)
    for i in range(-(-len(pairs) // of)):
        index = i * of + rank
        outputs = {"restored": restored[index]} if index in restored else {}
        callback.on_validation_batch_end(trainer, module, outputs, pairs[index] if index < len(pairs) else None, i)
    callback.on_validation_end(trainer, module)


@pytest.mark.parametrize(
    ("scale", "channels", "noise"), [(2, 3, 0.0), (3, 1, 0.0), (1, 3, 0.5), (1, 1, 0.5)], ids=["colour", "gray", "noise", "gray noise"]
)
def test_crops_of_any_kind_of_image_keep_their_pixels(tmp_path, scale, channels, noise):
    """In TensorBoard and in W&B; float LQ outside [0, 1] is clamped, and the input and the truth are logged once."""
    hq, *restored = (picture(60, 48, channels, seed) for seed in range(3))
    lq = picture(60 // scale, 48 // scale, channels, 3)
    shown = lq
    if noise:
        lq = (lq / 255 + np.random.default_rng(0).normal(0, noise, lq.shape)).astype(np.float32)
        shown = (lq.clip(0, 1) * 255).round().astype(np.uint8)
        assert lq.min() < 0
        assert lq.max() > 1
    board, wandb = TensorBoardLogger(tmp_path, name="", version=""), WandbCalls()
    callback, pairs = ValidationCrops(images=1, crop=32), Pairs([TestPair("a", lq, hq)])
    for step, pixels in zip((7, 9), restored, strict=True):
        validate(callback, pairs, {0: pixels}, [board, wandb], step)
    board.experiment.flush()
    part = detailed_crop(hq, 32)
    expected = {"val/a": dict(zip((7, 9), restored, strict=True)), "val/a (truth)": {7: hq}}
    expected["val/a (input)"] = {7: shown.repeat(scale, 0).repeat(scale, 1)}
    for tag, by_step in expected.items():
        found = images(tmp_path, tag)
        assert found.keys() == by_step.keys()
        for step, whole in by_step.items():
            np.testing.assert_array_equal(found[step], np.broadcast_to(whole[part], (32, 32, 3)))
            np.testing.assert_array_equal(wandb.calls[tag, step], found[step])
    assert len(wandb.calls) == 4


def test_crops_are_bounded_evenly_spaced_and_omit_what_is_not_finite():
    pairs = Pairs([TestPair(f"{i}", picture(10, 12, seed=i), picture(20, 24, seed=i)) for i in range(7)])
    wandb, callback = WandbCalls(), ValidationCrops(images=2, crop=192)
    validate(callback, pairs, {i: pairs[i].hq for i in range(7) if i != 1}, [wandb], step=5)
    assert list(wandb.calls) == [(f"val/{name}", 5) for name in ("1 (input)", "1 (truth)", "5 (input)", "5 (truth)", "5")]
    resumed = ValidationCrops(images=2, crop=192)
    resumed.load_state_dict(callback.state_dict())
    validate(resumed, pairs, {i: pairs[i].hq for i in range(7)}, [wandb], step=6)
    assert list(wandb.calls)[5:] == [("val/1", 6), ("val/5", 6)]


def test_crops_of_all_processes_are_logged_by_the_first(monkeypatch):
    pairs = Pairs([TestPair(f"{i}", picture(10, 12, seed=i), picture(20, 24, seed=i)) for i in range(3)])
    restored = {i: picture(20, 24, seed=10 + i) for i in range(3)}
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(validation_crops, "over_processes", lambda values, operation: sent.append(values) or values)
    nothing = WandbCalls()
    validate(ValidationCrops(images=3, crop=16), pairs, restored, [nothing], step=5, rank=1, of=2)
    assert nothing.calls == {}
    monkeypatch.setattr(validation_crops, "over_processes", lambda values, operation: values + sent.pop(0))
    wandb = WandbCalls()
    validate(ValidationCrops(images=3, crop=16), pairs, restored, [wandb], step=5, rank=0, of=2)
    for i, pair in enumerate(pairs):
        np.testing.assert_array_equal(wandb.calls[f"val/{i}", 5], restored[i][detailed_crop(pair.hq, 16)])


def test_a_run_shows_each_image_in_place_over_its_steps(tmp_path):
    run = train(
        build(
            tmp_path,
            "trainer.max_steps=4",
            "trainer.val_check_interval=2",
            "logger=tensorboard",
            "callbacks.images.crop=32",
            "optim.lr=0.01",
        )
    )
    folder = run.folder / "tensorboard"
    for pair in run.validation.chosen:
        crops = images(folder, f"val/{pair.name}")
        assert list(crops) == [2, 4]
        assert not np.array_equal(crops[2], crops[4])
        truth = images(folder, f"val/{pair.name} (truth)")
        np.testing.assert_array_equal(truth[2], pair.hq[detailed_crop(pair.hq, 32)])
        assert list(truth) == [2]


def test_the_crop_has_the_strongest_edges():
    image = np.full((100, 90, 3), 128, np.uint8)
    image[64:96, 40:60] = picture(32, 20)
    rows, columns = detailed_crop(image, 32)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (32, 32)
    assert rows.start == 64
    assert columns.start in (32, 48)


def test_weights_and_biases_is_an_extra(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == "wandb" else find_spec(name, *args))
    with pytest.raises(UserError, match=r"^logger=wandb: the package wandb is not installed: pip install irformer\[wandb\]$"):
        build(tmp_path, "logger=wandb")


def test_weights_and_biases_works_without_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for folder in (tmp_path / "first", tmp_path / "second"):  # as in a sweep, in one process
        run = build(folder, "logger=wandb", "logger.wandb.offline=true", "trainer.max_steps=2")
        run.execute(Console(quiet=True))
        (record,) = (run.folder / "wandb").glob("offline-run-*/run-tiny.wandb")
        assert b"train/loss" in record.read_bytes()
        assert len(list((run.folder / "wandb").rglob("*.png"))) == 6  # of two images: input, truth, restored
