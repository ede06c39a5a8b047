"""Every task trains; random numbers of a sample depend only on (seed, index), also on the device."""

import numpy as np
import pytest
import torch
from conftest import picture
from rich.console import Console
from torch.utils.data import DataLoader, default_collate

from irformer.config.compose import build_network, compose, instantiate
from irformer.config.tasks import complete_tasks
from irformer.data.samples import GlobalBatches, TrainingSamples, to_batch
from irformer.data.sources import FolderImages, pair_folders
from irformer.data.stages import Stages
from irformer.errors import UserError
from irformer.imaging.gray import to_gray
from irformer.imaging.images import write_image
from irformer.tasks.degradations import DeviceDegradation, GaussianNoise, Jpeg
from irformer.tasks.task import Task
from irformer.training.build import build_run

TASKS = complete_tasks()
TINY = ["model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", "norm=iln", "trainer=cpu", "logger=csv"]


def task_of(name: str, *overrides: str) -> Task:
    return instantiate(compose("benchmark", [f"task={name}", *overrides, "checkpoint=degraded"]).task)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Training images, their rainy counterparts, and a test set of pairs."""
    root = tmp_path_factory.mktemp("images")
    for name, size in [("clean", (83, 100)), ("rainy", (83, 100)), ("val/target", (35, 42)), ("val/input", (35, 42))]:
        (root / name).mkdir(parents=True)
        for i in range(2):
            write_image(root / name / f"{i}.png", picture(*size, seed=i + 10 * ("rainy" in name or "input" in name)))
    return root


def run_of(task: str, folder, folders, *overrides: str):
    words = ["data=folder", f"data.path={folders / 'clean'}", f"data.val={folders / 'val'}", f"test_sets=[{folders / 'val'}]"]
    if task == "derain" and not any(word.startswith("data.lq_path") for word in overrides):
        words.append(f"data.lq_path={folders / 'rainy'}")
    small = ["batch_size=2", "patch_size=8", "trainer.val_check_interval=5", "callbacks.probe.every=5", "callbacks.probe.images=2"]
    return build_run(compose("train", [f"task={task}", *TINY, *small, "name=test", *words, "trainer.max_steps=5", *overrides]), folder)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_trains(tmp_path, folders, name):
    """Five steps, probes, validation, the benchmark of the best weights: the record contains the task's metrics, all finite."""
    run = run_of(name, tmp_path, folders)
    record = run.execute(Console(quiet=True))
    assert (record["task"], record["protocol"]["metrics"]) == (name, list(run.task.protocol.metrics))
    assert list(record["test_sets"]["val"]["metrics"]) == list(run.task.protocol.metrics)
    assert np.isfinite(list(record["test_sets"]["val"]["metrics"].values())).all()
    assert record["test_sets"]["val"]["lq"] == ("files" if name == "derain" else "made on the fly")
    page = (tmp_path / "report.html").read_text()
    assert ("bicubic" if run.task.scale > 1 else "degraded") in page


def test_every_task_of_the_papers_is_there():
    levels = [f"denoise_{c}_{s}" for c in ("color", "gray") for s in (15, 25, 50, "blind")]
    qualities = [f"jpeg_{c}_{q}" for c in ("color", "gray") for q in (10, 20, 30, 40, "blind")]
    assert set(TASKS) >= {"sr_x2", "sr_x3", "sr_x4", "sr_x8", "derain", *levels, *qualities}


@pytest.mark.parametrize("model", ["swinir_tiny", "hat_tiny", "drct_tiny", "restormer_tiny", "swinir_jpeg"])
@pytest.mark.parametrize("task", ["denoise_gray_25", "jpeg_color_40"])
def test_at_scale_1_a_network_adds_a_residual_to_its_input(model, task):
    """The official architecture for denoising and JPEG, regardless of the upsampler configured for super-resolution."""
    words = [] if model == "restormer_tiny" else ["model.embed_dim=12", "model.num_heads=[2]"]
    words += ["model.depths=[1]"] if model.startswith(("swinir", "hat")) else []
    network = build_network(compose("train", [f"model={model}", f"task={task}", *words]).model).eval()
    last = network.output if model == "restormer_tiny" else network.conv_last
    for parameter in last.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.rand(1, network.in_channels, 19, 22)
    with torch.no_grad():
        torch.testing.assert_close(network(x), x, rtol=0, atol=1e-5)
    assert not any("upsample" in name for name in network.state_dict())


def test_deraining_without_degraded_files_is_refused(tmp_path, folders):
    with pytest.raises(UserError, match=r"the task derain trains on pairs, .*data=folder data\.path=CLEAN data\.lq_path=DEGRADED"):
        run_of("derain", tmp_path, folders, "data.lq_path=null")


def samples_of(folders, name: str, *overrides: str, seed: int = 0, patch: int = 16) -> TrainingSamples:
    task = task_of(name, *overrides)
    return TrainingSamples(FolderImages(pair_folders(folders / "clean", None, 1), 1), task, Stages.constant(patch, 8), seed)


@pytest.mark.parametrize("name", ["denoise_color_blind", "denoise_gray_25"])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_noise_is_that_of_the_sample_whoever_reads_it(folders, name, workers):
    """For any number of workers, for one or two processes, and after resuming."""
    samples = samples_of(folders, name)
    assert isinstance(samples.task.degradation, DeviceDegradation)
    assert set(samples[0]) == {"hq", "index"}
    alone = {index: to_batch(default_collate([samples[index]]), samples.task, 0)["lq"][0] for index in range(16)}
    assert len({lq.numpy().tobytes() for lq in alone.values()}) == 16
    shares: list[dict] = [{"rank": 0, "world_size": 2}, {"rank": 1, "world_size": 2}, {"start": 1}]
    for share in shares:
        loader = DataLoader(samples, batch_sampler=GlobalBatches(Stages.constant(16, 8), 2, **share), num_workers=workers)
        for batch in loader:
            assert batch["hq"].dtype == torch.uint8
            made = to_batch(batch, samples.task, 0)
            for index, lq in zip(batch["index"].tolist(), made["lq"], strict=True):
                assert torch.equal(lq, alone[index])
    other = to_batch(default_collate([samples[0]]), samples.task, 1)["lq"][0]
    assert not torch.equal(other, alone[0])


def test_runs_with_workers_and_runs_resumed_end_with_the_same_bits(tmp_path, folders):
    def weights(name: str, *overrides: str):
        run_of("denoise_color_blind", tmp_path / name, folders, *overrides).execute(Console(quiet=True))
        return torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"]

    plain = weights("plain")
    shared = weights("shared", "data.workers=2")
    weights("parts", "trainer.max_steps=2", "trainer.val_check_interval=2")
    resumed = weights("parts", f"resume={tmp_path / 'parts'}")
    for other in (shared, resumed):
        assert all(torch.equal(value, other[key]) for key, value in plain.items())


def test_the_probe_looks_at_noisy_patches(tmp_path, folders):
    """The same batch that training makes of the first samples."""
    run = run_of("denoise_color_50", tmp_path, folders)
    run.execute(Console(quiet=True))
    (probe,) = (callback for callback in run.trainer.callbacks if type(callback).__name__ == "Probe")
    batch = default_collate([run.data.samples[i] for i in range(2)])
    expected = to_batch(batch, run.task, run.module.seed)
    assert torch.equal(probe._batch, expected["lq"])
    assert (expected["lq"] - expected["hq"]).std() > 0.1


def _place(patch: np.ndarray, image: np.ndarray) -> tuple[int, int] | None:
    windows = np.lib.stride_tricks.sliding_window_view(image, patch.shape[:2], axis=(0, 1))
    places = np.argwhere((windows == patch.transpose(2, 0, 1)).all((2, 3, 4)))
    return (int(places[0][0]), int(places[0][1])) if len(places) else None


def _turned(image: np.ndarray) -> list[np.ndarray]:
    upright = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    return [np.ascontiguousarray(turned) for turned in (*upright, *(view.swapaxes(0, 1) for view in upright))]


@pytest.mark.parametrize(("name", "rules"), [("jpeg_gray_10", ("matlab", "opencv")), ("jpeg_color_10", (None,))])
def test_a_jpeg_sample_is_a_part_of_the_compressed_image(folders, name, rules):
    """Equals a crop of the whole image, rotated and then compressed, in gray by both rules, on and off the grid of blocks."""
    samples = samples_of(folders, name)
    jpeg = samples.task.degradation
    assert isinstance(jpeg, Jpeg)
    whole = []
    for i in range(2):
        for turned in _turned(samples.images.hq(i)):
            for rule in rules:
                clean = turned if rule is None else to_gray(turned, rule)
                whole.append((rule, clean, jpeg.test(clean)))
    seen, phases = set(), set()
    for index in range(24):
        lq, hq = (samples[index][key].permute(1, 2, 0).numpy() for key in ("lq", "hq"))
        found = [(rule, place, clean) for rule, clean, compressed in whole if (place := _place(lq, compressed)) is not None]
        assert found, index
        rule, (top, left), clean = found[0]
        assert np.array_equal(clean[top : top + 16, left : left + 16], hq)
        seen.add(rule)
        phases.add((top % 8, left % 8))
    assert seen == set(rules)
    assert len(phases) > 12


def test_gray_denoising_learns_from_opencv_s_gray(folders):
    samples = samples_of(folders, "denoise_gray_blind")
    assert isinstance(samples.task.degradation, GaussianNoise)
    views = [turned for i in range(2) for turned in _turned(to_gray(samples.images.hq(i), "opencv"))]
    for index in range(6):
        hq = samples[index]["hq"].permute(1, 2, 0).numpy()
        assert any(_place(hq, view) is not None for view in views)
