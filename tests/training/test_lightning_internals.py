"""The Lightning internals that irformer uses: if a new version breaks one, a test here shows what changed."""

import multiprocessing
import subprocess
import sys
import threading
from importlib.metadata import requires
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import DDPStrategy
from packaging.requirements import Requirement

from irformer.training import lightning_internals as internals


class Recorder(Profiler):
    def __init__(self) -> None:
        super().__init__()
        self.actions: list[str] = []

    def start(self, action_name: str) -> None:
        self.actions.append(action_name)

    def stop(self, action_name: str) -> None:
        pass


def fit(folder: Path, steps: int, callback: lightning.Callback, **arguments: object) -> lightning.Trainer:
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(folder),
        callbacks=[callback],
        profiler=Recorder(),
        **arguments,  # type: ignore[arg-type]
    )
    trainer.fit(BoringModel())
    return trainer


def test_the_installed_version_is_one_that_was_tested() -> None:
    (own,) = [Requirement(text) for text in requires("irformer") or () if text.startswith("lightning")]
    assert own.specifier.contains(lightning.__version__)
    assert not own.specifier.contains("2.7.0")


def test_the_wait_for_a_batch_reaches_the_profiler_under_its_name(tmp_path: Path) -> None:
    trainer = fit(tmp_path, 3, lightning.Callback())
    assert trainer.profiler.actions.count(internals.DATA_WAIT_ACTION) >= 3


class KeepCounters(lightning.Callback):
    """Validates before the first step, and copies the counters at the end of step 2."""

    counters: dict | None = None
    validations = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        internals.validate_within_training(trainer)
        assert trainer.training

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.global_step == 2:
            self.counters = internals.loop_counters(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.validations += 1


def test_the_counters_of_a_step_are_written_and_restored(tmp_path: Path) -> None:
    keep = KeepCounters()
    trainer = fit(tmp_path, 4, keep, limit_val_batches=1, check_val_every_n_epoch=None, val_check_interval=1000)
    assert keep.validations == 1
    assert trainer.global_step == 4
    checkpoint: dict = {"loops": {"fit_loop": None}}
    internals.put_loop_counters(checkpoint, keep.counters)
    internals.restore_loop_counters(trainer, checkpoint)
    assert trainer.global_step == 2


def test_processes_of_a_launcher_are_told_apart_by_how_they_were_started() -> None:
    script = subprocess.Popen([sys.executable, "-c", "pass"])
    spawned = multiprocessing.get_context("spawn").Process()
    launcher = SimpleNamespace(procs=[script, spawned])
    assert internals.started_as_scripts(launcher) == [script]
    assert internals.started_by_spawn(launcher) == [spawned]
    assert internals.started_as_scripts(None) == internals.started_by_spawn(None) == []
    script.wait()


@pytest.mark.parametrize(("start_method", "spawning"), [("popen", False), ("spawn", True)])
def test_launchers_keep_their_processes_in_procs(start_method: str, spawning: bool) -> None:
    strategy = DDPStrategy(start_method=start_method, parallel_devices=[torch.device("cpu")] * 2, accelerator=None)  # type: ignore[arg-type]
    strategy.cluster_environment = SimpleNamespace(creates_processes_externally=False)  # type: ignore[assignment]
    strategy._configure_launcher()
    assert strategy.launcher.procs == []
    assert internals.spawns(strategy.launcher) is spawning


def test_a_disarmed_observer_ends_without_killing_anyone() -> None:
    failing = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    failing.wait()
    observer = _ChildProcessObserver(main_pid=0, child_processes=[failing], sleep_period=0)
    started, release = threading.Event(), threading.Event()

    def run() -> None:  # instead of the endless loop, one check after it was disabled
        started.set()
        release.wait()
        observer._finished = observer._run()

    observer.run = run  # type: ignore[method-assign]
    observer.start()
    started.wait()
    internals.disarm_process_observer()
    release.set()
    observer.join(10)
    assert observer._finished is True
