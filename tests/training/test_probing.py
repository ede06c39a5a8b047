"""The probe within a run: what it writes is what a direct call measures, whatever the run's precision, compilation and processes."""

import csv
from contextlib import nullcontext
from pathlib import Path

import lightning
import pytest
import torch
from small_runs import execute, finish, start, write_photos
from test_processes import TWO, _ports, lightning_processes
from tiny import build, train

from irformer.dynamics.dynamics_csv import Row, read_rows
from irformer.dynamics.features import measure
from irformer.dynamics.selection import select_layers
from irformer.dynamics.vectors_csv import read_vectors
from irformer.errors import UserError
from irformer.training.callbacks.probe import Probe

WORDS = ["groups", "attention", "conv_*"]
ALL = ["+callbacks.probe._target_=irformer.training.callbacks.probe.Probe", "+callbacks.probe.training_batches=true"]


class Recorder(lightning.Callback):
    """Measures what the probe is to measure at the last step, on its batch and on the training batch."""

    def __init__(self, context) -> None:
        self.context = context
        self.rows: set[Row] = set()
        self.before: dict[str, torch.Tensor] = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.before = {name: weight.detach().clone() for name, weight in pl_module.network.named_parameters()}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.gradients = {name: weight.grad.clone() for name, weight in pl_module.network.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step != trainer.max_steps:
            return
        network, step = pl_module.network, trainer.global_step
        probe = next(callback for callback in trainer.callbacks if isinstance(callback, Probe))
        layers = select_layers(network, WORDS)
        with self.context:
            for source, images in (("probe", probe._batch), ("training", batch["lq"])):
                for layer, values, _ in measure(network, images, layers):
                    self.rows |= {Row(step, layer.index, layer.name, name, value, layer.kind, source) for name, value in values.items()}
        for layer in layers:
            names = [name for name, _ in network.named_parameters() if name.startswith(f"{layer.name}.")]
            gradient = torch.cat([self.gradients[name].flatten() for name in names]).norm()
            weights, old = (
                torch.cat([where[name].flatten() for name in names]) for where in (dict(network.named_parameters()), self.before)
            )
            ratio = (weights - old).norm() / old.norm()
            for name, value in (("gradient_norm", gradient), ("update_ratio", ratio)):
                self.rows.add(Row(step, layer.index, layer.name, name, value.item(), layer.kind, "training"))


def probed(folder: Path, *words: str, context=None) -> tuple[list[Row], set[Row]]:
    """Train for three steps and probe at the last; return the rows of its features, gradients and updates, and those expected."""
    probe = [*ALL, "+callbacks.probe.layers=[groups,attention,conv_*]", "+callbacks.probe.every=2"]
    run = build(folder, "callbacks.probe={}", *probe, "trainer.max_steps=3", *words)
    recorder = Recorder(context or nullcontext())
    run.trainer.callbacks.insert(-1, recorder)
    train(run)
    rows = [row for row in read_rows(folder / "run" / "dynamics.csv") if row.step == 3 and row.source != "weights"]
    return rows, recorder.rows


def require_equal(found: list[Row], expected: set[Row]) -> None:
    values = {row._replace(value=0.0): row.value for row in expected}
    assert {row._replace(value=0.0) for row in found} == values.keys()
    assert len(found) == len(values)
    for row in found:
        assert row.value == pytest.approx(values[row._replace(value=0.0)], rel=1e-4), row


def test_a_run_writes_what_a_direct_call_measures(tmp_path):
    found, expected = probed(tmp_path, "max_batch_per_device=1")
    require_equal(found, expected)
    assert {row.step for row in read_rows(tmp_path / "run" / "dynamics.csv")} == {0, 2, 3}


def test_in_bf16_the_features_are_those_of_autocast(tmp_path):
    found, expected = probed(tmp_path, "trainer.precision=bf16", context=torch.autocast("cpu", torch.bfloat16))
    require_equal(found, expected)
    plain, _ = probed(tmp_path / "plain")
    magnitudes = [
        {row.name: row.value for row in rows if (row.statistic, row.source) == ("mean_square", "probe")} for rows in (found, plain)
    ]
    assert magnitudes[0] == pytest.approx(magnitudes[1], rel=0.05)
    assert magnitudes[0] != magnitudes[1]


def test_a_compiled_network_is_compiled_once_and_probed_uncompiled(tmp_path, monkeypatch):
    original, compilations = torch.compile, []

    def counted(graph, inputs):
        compilations.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda network, **_: original(network, backend=counted, dynamic=False))
    found, expected = probed(tmp_path, "trainer.compile=true")
    require_equal(found, expected)
    assert len(compilations) == 1


def test_the_last_step_writes_vectors_from_which_the_figures_are_drawn(tmp_path):
    run = train(
        build(tmp_path, "callbacks.probe={}", ALL[0], "+callbacks.probe.layers=[norms]", "trainer.max_steps=3", "norm=ln", "optim.ema=null")
    )
    network = run.module.network
    rows = read_rows(run.folder / "dynamics.csv")
    vectors = read_vectors(run.folder / "vectors.csv")
    last = {(vector.name, vector.quantity): vector.values for vector in vectors if vector.step == 3}
    assert {vector.step for vector in vectors} == {0, 3}
    for name in ("weight", "bias"):
        expected = getattr(network.norm, name).tolist()
        assert last["final_norm", name].tolist() == pytest.approx(expected, rel=0.006, abs=1e-9)
    attention = next(layer for layer in select_layers(network, ["attention"]))
    expected = attention.module.position_biases().detach().numpy()
    assert last[attention.name, "position_biases"] == pytest.approx(expected, rel=0.006, abs=1e-9)
    groups = list(network.groups)
    assert [len(last[name, "channel_energy"]) for name in groups] == [network.group_channels[name] for name in groups]
    assert {row.kind for row in rows} == {"norms", "final_norm", "position_bias", "scale_invariant"}
    assert (run.folder / "vectors.csv").stat().st_size < 20_000


def test_what_is_switched_off_is_not_written(tmp_path):
    off = [f"+callbacks.probe.{key}=false" for key in ("gradients", "weights", "vectors")]
    run = train(build(tmp_path, "callbacks.probe={}", ALL[0], *off, "trainer.max_steps=1"))
    assert {(row.kind, row.source) for row in read_rows(run.folder / "dynamics.csv")} == {("groups", "probe")}
    assert not (run.folder / "vectors.csv").exists()


def test_logarithmic_steps(tmp_path):
    spacing = ["+callbacks.probe.spacing=log", "+callbacks.probe.per_decade=4"]
    run = train(build(tmp_path, "callbacks.probe={}", ALL[0], *spacing, "trainer.max_steps=7"))
    assert sorted({row.step for row in read_rows(run.folder / "dynamics.csv")}) == [0, 1, 2, 3, 6, 7]
    assert sorted({vector.step for vector in read_vectors(run.folder / "vectors.csv")}) == [0, 1, 2, 3, 6, 7]


def test_a_word_that_selects_nothing_is_reported_before_training(tmp_path):
    with pytest.raises(
        UserError, match=r"callbacks\.probe\.layers=layer\.\*: no module of SwinIR matches; use groups, blocks, .*layers\.0"
    ):
        build(tmp_path, "callbacks.probe={}", ALL[0], "+callbacks.probe.layers=['layer.*']")
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_writes_the_bytes_of_an_uninterrupted_one(tmp_path):
    """Interrupted after the checkpoint of step 3, with rows of step 4 in the files."""
    photos = write_photos(tmp_path, 1)
    words = ["callbacks.probe.every=1", "callbacks.probe.training_batches=true", "callbacks.probe.layers=[groups,norms]", "norm=ln"]
    words += ["trainer.val_check_interval=5", "checkpoint_every=3", "trainer.max_steps=5"]
    execute(tmp_path / "whole", photos, *words)

    class KilledError(Exception):
        pass

    def kill(self, trainer, pl_module, outputs, batch, batch_idx):
        original(self, trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step == 4:
            raise KilledError

    original = Probe.on_train_batch_end
    Probe.on_train_batch_end = kill
    try:
        with pytest.raises(KilledError):
            execute(tmp_path / "parts", photos, *words)
    finally:
        Probe.on_train_batch_end = original
    files = ("dynamics.csv", "vectors.csv")
    sizes = {name: (tmp_path / "parts" / name).stat().st_size for name in files}
    assert max(vector.step for vector in read_vectors(tmp_path / "parts" / "vectors.csv")) == 4
    execute(tmp_path / "parts", photos, *words, f"resume={tmp_path / 'parts'}")
    for name in files:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert sizes[name] < (tmp_path / "whole" / name).stat().st_size


def test_the_first_of_two_processes_writes_what_one_process_writes(tmp_path):
    photos = write_photos(tmp_path, 1)
    words = ["trainer.max_steps=4", "trainer.val_check_interval=4", "callbacks.probe.layers=[groups,mlp]"]
    execute(tmp_path / "one", photos, *words)
    _ports.clear()
    started = [start(tmp_path / "two", photos, *words, *TWO, environment=environment) for environment in lightning_processes()]
    assert [finish(process) for process in started] == [0, 0], (tmp_path / "two.out").read_text()
    for name, column in (("dynamics.csv", "value"), ("vectors.csv", "values")):
        tables = []
        for folder in ("one", "two"):
            with (tmp_path / folder / name).open(newline="") as file:
                tables.append(list(csv.DictReader(file)))
        one, two = tables
        assert len(one) == len(two) > 0
        for a, b in zip(one, two, strict=True):
            first, second = ([float(number) for number in row.pop(column).split()] for row in (a, b))
            assert a == b
            assert first == pytest.approx(second, rel=0.02, abs=1e-4, nan_ok=True)
