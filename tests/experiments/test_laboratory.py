"""The engine with real processes and tiny runs: it resumes after a kill, trains nothing twice, and the plain commands do the same."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irformer.datasets.catalog import SAMPLE_VAL, sample_photos
from irformer.experiments.arm_records import Record
from irformer.experiments.budgets import CPU
from irformer.experiments.laboratory import Order, prepare
from irformer.imaging.images import read_image, write_image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    photo = read_image(sample_photos(SAMPLE_VAL)[1])
    for i in range(2):
        write_image(folder / f"part{i}.png", photo[80 + 8 * i : 120 + 8 * i, 100:140])
    return folder


def words(photos: Path, folder: Path, steps: int = 30) -> list[str]:
    """Arguments for table8 with tiny networks: four arms of one seed."""
    tiny = ["model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", "batch_size=1", "patch_size=16", f"trainer.max_steps={steps}"]
    data = ["data=sample", f"data.val={photos}", f"test_sets=[{photos}]", "checkpoint_every=1", "callbacks.probe.every=1"]
    return ["table8", "budget=cpu", "seeds=1", f"out={folder / 'out'}", f"paths.runs={folder / 'runs'}", *tiny, *data]


def command(*words: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts/reproduce.py"), *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def pages(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "out").iterdir() if file.is_file()}


def order(photos: Path, folder: Path) -> Order:
    extra = [word for word in words(photos, folder) if "=" in word and word.partition("=")[0] not in ("budget", "seeds", "out")]
    return Order(["table8"], CPU, seeds=1, out=folder / "out", extra=extra)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, photos) -> Path:
    """An experiment that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    output = finish(command(*words(photos, folder), "jobs=2"))
    assert "ms per step" in output
    assert output.index("estimated: ") < output.index("1 of 4: ")
    assert "4 of 4: finished" in output
    return folder


@pytest.mark.slow
def test_a_killed_command_resumes_and_writes_the_same_page(whole, photos, tmp_path):
    process = command(*words(photos, tmp_path), "jobs=2")
    deadline = time.monotonic() + 200
    while len(list((tmp_path / "runs").rglob("last.ckpt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("results.json")}
    finish(command(*words(photos, tmp_path), "jobs=2"))
    assert all(file.stat().st_mtime_ns == before for file, before in done.items())
    whole_pages, resumed = pages(whole), pages(tmp_path)
    assert resumed.keys() == whole_pages.keys()
    for name in resumed:
        assert resumed[name].replace(str(tmp_path).encode(), str(whole).encode()) == whole_pages[name], name
    logs = [file.read_text() for file in (tmp_path / "runs").rglob("log.txt")]
    assert len(logs) == 4
    assert not [line for log in logs for line in log.splitlines() if "site-packages" in line]  # warnings of libraries


@pytest.mark.slow
def test_a_terminated_command_stops_its_runs_and_says_how_to_resume(photos, tmp_path):
    process = command(*words(photos, tmp_path, steps=100_000), "jobs=2")
    deadline = time.monotonic() + 200
    while not list((tmp_path / "runs").rglob("last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; the same command resumes" in output


@pytest.mark.slow
def test_finished_runs_are_never_trained_again_and_need_no_run_folder(whole, photos):
    (whole / "runs").rename(whole / "moved")
    before = pages(whole)
    output = finish(command(*words(photos, whole)))
    assert "1 of" not in output
    assert "ms per step" not in output
    assert not (whole / "runs").exists()
    assert pages(whole) == before
    (whole / "moved").rename(whole / "runs")


@pytest.mark.slow
def test_a_printed_command_trains_in_the_folder_that_the_laboratory_expects(whole, photos, tmp_path):
    printed = finish(command(*words(photos, tmp_path), "--print")).splitlines()
    planned = prepare(order(photos, tmp_path))[1]
    assert printed == [run.command for run in planned]
    assert not (tmp_path / "runs").exists()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    typed = shlex.split(printed[0])
    assert typed[:2] == ["python", "train.py"]
    subprocess.run([sys.executable, str(ROOT / "train.py"), *typed[2:]], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert (planned[0].folder / "results.json").is_file()
    assert planned[0].folder.name == planned[0].name


@pytest.mark.slow
def test_a_record_is_small_and_names_neither_machine_nor_folder(whole, photos):
    records = sorted((whole / "out" / "data" / "cpu").iterdir())
    assert len(records) == 4
    for folder in records:
        assert sorted(file.name for file in folder.iterdir()) == [
            "config.yaml",
            "dynamics.csv",
            "metrics.csv",
            "provenance.json",
            "results.json",
        ]
        assert sum(file.stat().st_size for file in folder.iterdir()) < 20_000
        text = "".join(file.read_text() for file in folder.iterdir()).replace(str(photos), "")  # the user named this folder
        assert str(whole) not in text
        assert str(ROOT) not in text
        assert os.uname().nodename not in text
    run = prepare(order(photos, whole))
    assert run[1] == []
    record = Record(records[0])
    assert record.dynamics["mean_square"][0].steps.tolist() == list(range(31))
    assert json.loads((records[0] / "provenance.json").read_text())["starts"][0]["devices"]
