"""Non-finite values: the step is skipped bit-exactly on all processes. Precision by name, and deterministic algorithms."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from tiny import build, logged, train
from torch import Tensor, nn

from irformer.config.compose import build_network, compose, options
from irformer.errors import UserError
from irformer.training.callbacks.guard import Guard
from irformer.training.precision import set_precision
from irformer.training.run import Run

NAN = float("nan")
SPOIL = {
    "everything": lambda loss, restored: loss * NAN,
    "loss alone": lambda loss, restored: loss + NAN,  # its gradient is finite
    "gradient alone": lambda loss, restored: loss + (restored * 0).sum().sqrt(),  # 0 with the gradient inf * 0
}


class Spoiled(nn.Module):
    """L1 that fails in given calls, counted from 0."""

    def __init__(self, calls: set[int], kind: str = "everything") -> None:
        super().__init__()
        self.calls = calls
        self.kind = kind
        self.call = -1

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        self.call += 1
        loss = (restored - clean).abs().mean()
        return SPOIL[self.kind](loss, restored) if self.call in self.calls else loss


def guard_of(run: Run) -> Guard:
    return next(callback for callback in run.trainer.callbacks if isinstance(callback, Guard))


def trained_without(run: Run, steps: int, left_out: set[int], accumulate: int, bf16: bool) -> tuple[dict, dict, dict]:
    """Train in plain PyTorch with some steps skipped; return the weights, their average and the optimizer state."""
    network = run.module.network
    network.train()
    optimizer = run.module.build_optimizer(network.parameters())
    average: dict[str, Tensor] = {}
    size = run.data.stages.batch_at(0)
    share = size // accumulate
    for step in range(steps):
        optimizer.zero_grad()
        if step in left_out:
            continue
        for part in range(accumulate):
            first = step * size + part * share
            samples = [run.data.samples[i] for i in range(first, first + share)]
            lq, hq = (torch.stack([sample[key] for sample in samples]).float() / 255 for key in ("lq", "hq"))
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
                loss = (network(lq) - hq).abs().mean()
            (loss / accumulate).backward()
        optimizer.step()
        decay = min(0.999, (2 + step) / (11 + step))
        for name, value in network.state_dict().items():
            average[name] = average[name].lerp(value, 1 - decay) if name in average else value.clone()
    return network.state_dict(), average, optimizer.state_dict()["state"]


@pytest.mark.parametrize(
    ("kind", "optimizer", "accumulate", "precision"),
    [
        ("everything", "adam", 1, "fp32"),
        ("loss alone", "adamw", 1, "fp32"),
        ("gradient alone", "adamw", 2, "fp32"),
        ("everything", "adam", 2, "bf16"),
    ],
)
def test_a_step_that_goes_wrong_leaves_every_bit_as_it_was(tmp_path, kind, optimizer, accumulate, precision):
    words = [f"optim={optimizer}", "optim.lr=1e-3", f"trainer.accumulate_grad_batches={accumulate}", f"trainer.precision={precision}"]
    run = build(tmp_path, *words, "trainer.max_steps=6")
    # With accumulation, the first of the step's two batches is the bad one.
    run.module.loss = Spoiled({2 * accumulate, 4 * accumulate}, kind)
    train(run)
    weights, average, optimizer_state = trained_without(build(tmp_path / "reference", *words), 6, {2, 4}, accumulate, precision == "bf16")
    state = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in weights.items():
        assert torch.equal(state["current_model_state"][f"network.{name}"], value), name
        assert torch.equal(state["state_dict"][f"network.{name}"], average[name]), f"average of {name}"
    for i, values in state["optimizer_states"][0]["state"].items():
        assert all(torch.equal(value, optimizer_state[i][name]) for name, value in values.items())
    assert logged(run, "train/skipped_steps") == [0, 0, 1, 1, 2, 2]


def test_running_statistics_survive_a_bad_batch(tmp_path):
    """NaN pixels give NaN statistics, a NaN loss, and, with L1, finite gradients in the last layers."""

    class BadPixels(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.before = {name: value.clone() for name, value in pl_module.state_dict().items()}
            if batch_idx == 1:
                batch["lq"].fill_(NAN)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            same = [torch.equal(value, self.before[name]) for name, value in pl_module.state_dict().items()]
            assert all(same) if batch_idx == 1 else not any(same), batch_idx
            assert all(value.isfinite().all() for value in pl_module.state_dict().values())

    run = build(tmp_path, "norm=batch", "trainer.max_steps=3")
    assert any("running_mean" in name for name in run.module.state_dict())
    run.trainer.callbacks.append(BadPixels())
    assert guard_of(train(run)).skipped == 1


def test_a_resumed_run_goes_on_counting(tmp_path):
    first = build(tmp_path, "trainer.max_steps=3")
    first.module.loss = Spoiled({1, 2})
    train(first)
    resumed = build(tmp_path, "trainer.max_steps=6", "callbacks.guard.patience=4", f"resume={first.folder}")
    resumed.module.loss = Spoiled({0, 2})  # three in a row across the interruption, below the patience
    train(resumed)
    assert logged(resumed, "train/skipped_steps") == [0, 1, 2, 3, 3, 4]
    norms = logged(resumed, "train/grad_norm")
    assert [norm == norm for norm in norms] == [True, False, False, False, True, False]


def test_a_run_of_bad_steps_ends_with_what_is_needed_to_go_on(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    run = build(
        tmp_path, "trainer.max_steps=20", "checkpoint_every=4", "callbacks.guard.patience=3", "model.depths=[1,1]", "model.num_heads=[2,2]"
    )
    run.module.loss = Spoiled({0, 1, 3, 6, 7, 8})
    with pytest.raises(UserError) as caught:
        train(run)
    message = str(caught.value)
    assert message.startswith("step 9: loss nan, gradient norm nan, the last of 3 consecutive steps (callbacks.guard.patience) skipped")
    assert "largest activations of this batch by layer: layers.0 " in message
    largest = [float(message.partition(f"layers.{i} ")[2].split(",")[0].split(";")[0]) for i in range(2)]
    assert all(0 < value < 100 for value in largest)  # the network itself is finite
    assert "last good checkpoint: run/checkpoints/last.ckpt, step 8; to resume from it: python train.py resume=run trainer." in message
    assert "\n" not in message
    # One line at the start of each sequence of bad steps.
    assert [record.message.split(":")[0] for record in caplog.records if "skipped" in record.message] == ["step 1", "step 4", "step 7"]


def test_fp16_finds_its_scale_without_ending_the_run(tmp_path):
    def fit(loss: nn.Module, scale: float) -> tuple[Run, Guard, lightning.Trainer]:
        words = ["callbacks.guard.patience=2", "trainer.max_steps=14", "+optim.optimizer.fused=false"]  # as a run in fp16 has it
        run = build(tmp_path / f"{scale}", *words)
        guard = guard_of(run)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        run.module.loss = loss
        trainer = lightning.Trainer(
            accelerator="cpu", max_steps=14, plugins=MixedPrecision("16-mixed", "cpu", scaler), callbacks=[guard], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False, default_root_dir=tmp_path,
            limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(run.module, run.data)
        return run, guard, trainer

    run, guard, trainer = fit(Spoiled(set()), 2.0**30)
    scale = trainer.precision_plugin.scaler.get_scale()
    assert 2 <= guard.skipped <= 13
    assert scale == 2.0 ** (30 - guard.skipped)
    assert next(iter(run.module.optimizers().state.values()))["step"] == 14 - guard.skipped
    with pytest.raises(UserError, match=r"step 6: loss nan, gradient norm [\d.]+, the last of 2 consecutive steps"):
        fit(Spoiled({1, 4, 5}, "loss alone"), 2.0**4)


TWO_PROCESSES = """
    import json, os, socket, sys
    from pathlib import Path
    import torch
    from irformer.errors import UserError
    from test_guard import Spoiled, guard_of
    from tiny import build, train

    folder = Path(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    rank = 1 if os.fork() == 0 else 0  # as torchrun starts them, but for a second import of everything
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0", "RANK": str(rank), "LOCAL_RANK": str(rank),
    }
    run = build(folder / str(rank), "trainer.strategy=ddp", "trainer.devices=2", "trainer.max_steps=9", "callbacks.guard.patience=2")
    run.module.loss = Spoiled({1, 4, 5} if rank == 1 else set(), "loss alone")
    try:
        train(run)
    except UserError as error:
        weights = torch.cat([p.detach().flatten() for p in run.module.network.parameters()])
        taken = next(iter(run.module.optimizers().state.values()))["step"].item()
        report = {"text": str(error), "weights": weights.tolist(), "skipped": guard_of(run).skipped, "taken": taken}
        (folder / f"{rank}.json").write_text(json.dumps(report))
    if rank == 0:
        os.wait()
"""


def test_all_processes_leave_out_a_step_that_went_wrong_on_one(tmp_path):
    """The loss of the second process is NaN with a finite gradient, so only the guard informs the first process."""
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(TWO_PROCESSES))
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, script, tmp_path], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=300
    )
    assert (tmp_path / "1.json").is_file(), done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert (first["skipped"], first["taken"]) == (3, 3)
    assert re.match(r"step 6: loss nan, gradient norm \d\.", first["text"])
    assert "no checkpoint yet (checkpoint_every)" in first["text"]


@pytest.fixture
def torch_switches():
    """Restore PyTorch's global flags after the test."""
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    workspace = os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolution
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if workspace is not None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = workspace


def test_precision_is_one_word(tmp_path, torch_switches):
    tf32 = build(tmp_path, "trainer.precision=tf32")
    assert (tf32.trainer.precision, torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("32-true", "high", True)
    for word, name in {
        "fp32": "32-true",
        "32-true": "32-true",
        "auto": "32-true",
        "bf16": "bf16-mixed",
        "bf16-mixed": "bf16-mixed",
    }.items():
        assert build(tmp_path, f"trainer.precision={word}").trainer.precision == name
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)
    with pytest.raises(
        UserError, match=r"trainer\.precision=tf23: unknown precision; known: auto, 32-true, fp32, tf32, .*did you mean tf32\?"
    ):
        build(tmp_path, "trainer.precision=tf23")
    with pytest.raises(UserError, match=r"trainer\.precision=fp16: fp16 needs a GPU"):
        set_precision("fp16", "cpu")


def test_deterministic_runs_are_equal_to_the_bit(tmp_path, torch_switches):
    states = []
    for name in ("a", "b"):
        run = train(build(tmp_path / name, "trainer.deterministic=true", "trainer.max_steps=3", "model.drop_path_rate=0.3", "norm=iln"))
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        states.append(torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


# Operations whose CUDA backward raises under use_deterministic_algorithms(True), by PyTorch's own list, as autograd names them.
NOT_DETERMINISTIC = ("ReflectionPad", "AdaptiveAvgPool", "AdaptiveMaxPool", "AvgPool3D", "FractionalMaxPool", "MaxUnpool", "UpsampleLinear",
                     "UpsampleBilinear", "UpsampleBicubic", "UpsampleTrilinear", "GridSampler", "NllLoss", "CtcLoss", "EmbeddingBag", "Put",
                     "Median", "Kthvalue", "ScatterReduce", "Histc", "Bincount")  # fmt: skip


def backward_operations(output: Tensor) -> set[str]:
    names, open_ = set(), [output.grad_fn]
    seen = set(open_)
    while open_:
        node = open_.pop()
        names.add(node.name())
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                open_.append(following)
    return names


@pytest.mark.parametrize("model", [name for name in options("model") if "tiny" in name])
def test_no_network_differentiates_what_has_no_deterministic_cuda_version(model):
    """On the CPU, the graph shows which operations a GPU would run; the size requires reflection padding."""
    network = build_network(compose("train", [f"model={model}", "norm=iln"]).model).train()
    lq = torch.rand(1, 3, 18, 21)
    assert not {name for name in backward_operations(network(lq).mean()) if name.startswith(NOT_DETERMINISTIC)}
    with_gradient = backward_operations(network(lq.requires_grad_()).mean())
    assert any(name.startswith("ReflectionPad") for name in with_gradient), "this walk would not have found it"
