"""Switches for speed: compilation, memory format, fused Adam, bf16 and cuDNN's benchmark; one without effect says so."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch._dynamo
from lightning.pytorch.callbacks import LambdaCallback
from tiny import TINY, build, logged, train
from torch import Tensor

from irformer.errors import UserError
from irformer.training import precision
from irformer.training.network_call import NetworkCall
from irformer.weights.checkpoints import load_checkpoint

PROGRESSIVE = [
    "patch_size=8",
    "progressive={steps: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1], patch_size: [8, 10, 12, 14, 16, 18, 20, 22, 24, 26], "
    "batch_size: [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]}",
]
RESTORMER = [*(word for word in TINY if not word.startswith("model")), "model=restormer_tiny", "task=denoise_color_25"]
CONVOLUTION = [
    *(word for word in TINY if not word.startswith("model")),
    *("model=external", "model.network._target_=torch.nn.Conv2d", "+model.network.in_channels=3", "+model.network.out_channels=3"),
    *("+model.network.kernel_size=1", "task=denoise_color_25"),
]


@pytest.fixture(autouse=True)
def unchanged_compiler() -> Iterator[None]:
    """Compiled code and the compiler's settings do not outlive a test."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=8, skip_nnmodule_hook_guards=True, optimize_ddp=True):
        yield


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace the compiler by one that runs the traced graph as it is; return the side of the patches for which it is called."""
    sides: list[int] = []
    original = torch.compile

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        sides.extend(value.shape[3] for value in inputs if value.dim() == 4 and value.shape[:2] == (2, 3))
        return graph.forward

    def compile_with(network: Any, mode: str, dynamic: bool) -> Any:
        assert mode == "default"
        return original(network, backend=backend, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", compile_with)
    return sides


def weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_training_steps_are_compiled_once_per_patch_size_and_validation_is_not(tmp_path: Path, compiled: list[int]) -> None:
    """More stages than torch._dynamo.config.recompile_limit; two validation images of other sizes; the probe's hooks fire."""
    probe = ["+callbacks.probe._target_=irformer.training.callbacks.probe.Probe", "+callbacks.probe.every=4", "+callbacks.probe.images=2"]
    words = [*PROGRESSIVE, *probe, "trainer.max_steps=12", "trainer.val_check_interval=6"]
    plain = train(build(tmp_path / "plain", *words))
    run = train(build(tmp_path / "compiled", *words, "trainer.compile=true"))
    assert compiled == [8, 10, 12, 14, 16, 18, 20, 22, 24, 26]
    assert (run.folder / "dynamics.csv").read_text() == (plain.folder / "dynamics.csv").read_text()
    assert logged(run, "train/loss") == pytest.approx(logged(plain, "train/loss"), rel=1e-5)
    assert logged(run, "val/psnr_y") == pytest.approx(logged(plain, "val/psnr_y"), rel=1e-5)
    assert type(run.module.network) is type(plain.module.network)
    assert load_checkpoint(run.folder).network.scale == 2


def test_a_checkpoint_is_resumed_compiled_or_not(tmp_path: Path, compiled: list[int]) -> None:
    whole = train(build(tmp_path / "whole", "trainer.max_steps=3"))
    for first, second in (("true", "false"), ("false", "true")):
        folder = tmp_path / first
        torch._dynamo.reset()
        compiled.clear()
        train(build(folder, "trainer.max_steps=1", f"trainer.compile={first}"))
        resumed = train(build(folder, "trainer.max_steps=3", f"trainer.compile={second}", f"resume={folder / 'run'}"))
        assert len(compiled) == 1
        assert logged(resumed, "train/loss") == pytest.approx(
            logged(whole, "train/loss"), rel=1e-5
        )  # compiled attention rounds differently
        assert weights(folder).keys() == weights(tmp_path / "whole").keys()
        assert all(torch.allclose(value, weights(folder)[name], atol=1e-3) for name, value in weights(tmp_path / "whole").items())


def test_a_forward_hook_that_is_added_during_training_fires(tmp_path: Path, compiled: list[int]) -> None:
    class AddsHook(lightning.Callback):
        fired = 0

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            if batch_idx == 0:
                pl_module.network.layers[0].register_forward_hook(self._count)

        def _count(self, *_: Any) -> None:
            self.fired += 1

    run = build(tmp_path, "trainer.max_steps=3", "trainer.compile=true", "optim.ema=null")
    hook = AddsHook()
    run.trainer.callbacks.insert(1, hook)
    before_validation = []
    count = LambdaCallback(on_validation_start=lambda *_: before_validation.append(hook.fired))
    run.trainer.callbacks.insert(2, count)
    train(run)
    assert before_validation == [2]


@pytest.mark.slow
def test_a_compiled_run_that_is_resumed_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """With PyTorch's own compiler and its random numbers for drop path."""
    words = ["model.depths=[2]", "model.drop_path_rate=0.5", "trainer.compile=true", "trainer.deterministic=true", "patch_size=8"]
    whole = train(build(tmp_path / "whole", *words, "trainer.max_steps=4"))
    torch._dynamo.reset()
    train(build(tmp_path / "parts", *words, "trainer.max_steps=3"))
    torch._dynamo.reset()
    resumed = train(build(tmp_path / "parts", *words, "trainer.max_steps=4", f"resume={tmp_path / 'parts' / 'run'}"))
    assert logged(resumed, "train/loss") == logged(whole, "train/loss")
    assert all(torch.equal(value, weights(tmp_path / "parts")[name]) for name, value in weights(tmp_path / "whole").items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["trainer.compile=max-autotun"],
            r"trainer\.compile=max-autotun: expected true, false, default, reduce-overhead, max-autotune or max-autotune-no-cudagraphs",
        ),
        (["trainer.compile=1"], r"trainer\.compile=1: expected true, false"),
        (["trainer.channels_last=always"], r"trainer\.channels_last=always: expected true or false"),
        (
            ["trainer.compile=max-autotune", "trainer.deterministic=true"],
            r"trainer\.compile=max-autotune selects kernels by measuring their time.*use trainer\.compile=true",
        ),
        (
            ["trainer.compile=true", "model.checkpointing=true", "norm=batch"],
            r"trainer\.compile with model\.checkpointing=true: .*norm=batch.*use only one of the two",
        ),
    ],
)
def test_mistakes_are_told_before_training(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(tmp_path, *words)


def test_a_network_that_cannot_be_compiled_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> None:
        raise ValueError("no kernel for this")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **_: original(network, backend=fails))
    with pytest.raises(UserError, match=r"trainer\.compile: torch\.compile fails .*no kernel for this.*use trainer\.compile=false"):
        NetworkCall("default")(torch.nn.Conv2d(3, 3, 1), torch.rand(1, 3, 4, 4))


def test_without_a_compiler_the_run_says_so_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("no compiler")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", missing)
    run = train(build(tmp_path, "trainer.compile=reduce-overhead", "trainer.max_steps=1"))
    assert run.summary["compile"].startswith("trainer.compile=reduce-overhead has no effect: on the CPU it needs a C++ compiler")
    assert len(logged(run, "train/loss")) == 1


def test_other_switches_without_effect_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["trainer.channels_last=true", "trainer.benchmark=true", "trainer.precision=bf16"]
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: False)
    summary = build(tmp_path, *words).summary
    assert "no effect: the features of Restormer" in build(tmp_path, words[0], words=RESTORMER).summary["channels_last"]
    assert "no effect: the features of SwinIR are channels-last anyway" in summary["channels_last"]
    assert "no effect on cpu" in summary["benchmark"]
    assert "emulates it" in summary["bf16"]
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: True)
    assert "bf16" not in build(tmp_path, "trainer.precision=bf16").summary
    assert not {"compile", "channels_last", "benchmark", "bf16"} & set(build(tmp_path).summary)


def test_patches_are_channels_last_and_the_weights_keep_their_format(tmp_path: Path) -> None:
    run = build(tmp_path, "trainer.channels_last=true", "trainer.max_steps=1", words=CONVOLUTION)
    formats: list[bool] = []
    run.module.network.register_forward_pre_hook(
        lambda network, inputs: formats.append(inputs[0].is_contiguous(memory_format=torch.channels_last)) if network.training else None
    )
    train(run)
    assert formats == [True]
    assert all(value.is_contiguous() for value in weights(tmp_path).values())


FUSED = [
    ([], True),
    (["optim=adamw"], True),
    (["+optim.optimizer.fused=false"], False),
    (["+optim.optimizer.foreach=true"], None),
    (["trainer.precision=bf16"], True),
    (["trainer.precision=bf16", "trainer.gradient_clip_val=0.1"], None),
    (["trainer.gradient_clip_val=0.1"], True),
    (["optim.optimizer._target_=torch.optim.NAdam"], None),
]


@pytest.mark.parametrize(("words", "fused"), FUSED)
def test_adam_is_fused_unless_something_speaks_against_it(tmp_path: Path, words: list[str], fused: bool | None) -> None:
    run = train(build(tmp_path, "trainer.max_steps=1", *words))
    assert run.trainer.optimizers[0].param_groups[0].get("fused") == fused


def test_a_resumed_optimizer_uses_the_implementation_of_its_own_device(tmp_path: Path) -> None:
    """The state in the checkpoint is that of a device on which PyTorch has no fused kernel."""
    train(build(tmp_path, "trainer.max_steps=1"))
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["optimizer_states"][0]["param_groups"][0].update(fused=None, foreach=False)
    torch.save(checkpoint, file)
    run = train(build(tmp_path, "trainer.max_steps=2", f"resume={tmp_path / 'run'}"))
    assert run.trainer.optimizers[0].param_groups[0]["fused"] is True
    assert run.trainer.optimizers[0].param_groups[0]["foreach"] is None
