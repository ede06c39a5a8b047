"""Callbacks of debug=overfit, debug=profile and debug=anomaly."""

import math
import os
from pathlib import Path
from typing import Annotated, Any

import lightning
import torch
from annotated_types import Ge, Gt
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, schedule
from torch.utils.hooks import RemovableHandle

from irformer.data.samples import Sample
from irformer.dynamics.features import evaluation_mode
from irformer.errors import UserError
from irformer.reporting.page import readable_console


class Overfit(lightning.Callback):
    """Trains until the network restores its one batch to a PSNR; a network, loss or optimizer that cannot do that is broken.

    The PSNR is 10 log10(1 / MSE) over all pixels and channels of the batch, in [0, 1] and clamped, not rounded, of the weights that are
    being trained, in evaluation mode. It is one number of training data, and no number of the benchmark.

    Args:
        psnr: dB at which training ends.
        every: steps between two measurements.
    """

    def __init__(self, psnr: Annotated[float, Gt(0)] = 45.0, every: Annotated[int, Ge(1)] = 50) -> None:
        self.target = psnr
        self.every = every
        self.psnr = -math.inf
        self.steps = 0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Sample, batch_idx: int
    ) -> None:
        """Measure when it is time, and stop when the PSNR is reached."""
        step = trainer.global_step
        if step == self.steps or not (step % self.every == 0 or step == trainer.max_steps):
            return
        network: nn.Module = pl_module.network  # type: ignore[assignment]
        with torch.no_grad(), evaluation_mode(network), trainer.precision_plugin.forward_context():
            error = (network(batch["lq"]).float().clamp(0, 1) - batch["hq"]).square().mean()
        error = trainer.strategy.reduce(error, reduce_op="mean").item()
        self.psnr = -10 * math.log10(error) if error > 0 else math.inf
        self.steps = step
        if trainer.is_global_zero:
            print(f"step {step}: {self.psnr:.1f} dB on the batch", flush=True)
        trainer.should_stop = trainer.should_stop or self.psnr >= self.target

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Refuse a run that has not got there.

        Raises:
            UserError: the PSNR was not reached.
        """
        if self.psnr < self.target:
            raise UserError(
                f"overfit: {self.psnr:.1f} dB on one batch after {self.steps} steps, expected {self.target:g} dB: the network, the loss or "
                f"the optimizer does not fit even one batch, or needs more trainer.max_steps or another optim.lr"
            )

    def closing_lines(self) -> list[str]:
        """What the run ends with."""
        return [f"overfit: {self.psnr:.1f} dB on one batch after {self.steps} steps"]


class TorchProfile(lightning.Callback):
    """Profiles some training steps with torch.profiler: trace.json in the run's folder, and a table of the operations that cost most.

    The trace opens in chrome://tracing or ui.perfetto.dev. The table gives an operation's own time, without what it calls, on the GPU
    where there is one. Only the first process is profiled.

    Args:
        skip: batches before it begins, in which libraries and allocators warm up.
        steps: batches that are profiled.
        rows: operations in the table.
    """

    def __init__(self, skip: Annotated[int, Ge(0)] = 3, steps: Annotated[int, Ge(1)] = 5, rows: Annotated[int, Ge(1)] = 10) -> None:
        self.skip = skip
        self.steps = steps
        self.rows = rows
        self._profiler: profile | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin to count batches.

        Raises:
            UserError: training ends before the batches are profiled.
        """
        batches = (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
        if batches < self.skip + self.steps:
            raise UserError(
                f"debug=profile takes {self.skip + self.steps} batches (callbacks.profile.skip and .steps), training has {batches}: "
                f"give a larger trainer.max_steps"
            )
        if not trainer.is_global_zero:
            return
        self._folder = Path(trainer.default_root_dir)
        self._on_gpu = trainer.strategy.root_device.type == "cuda"
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self._on_gpu
        # The profiler's own warm-up is the batch before the first that counts.
        rhythm = schedule(skip_first=max(0, self.skip - 1), wait=0, warmup=min(1, self.skip), active=self.steps, repeat=1)
        self._profiler = profile(activities=activities, schedule=rhythm, on_trace_ready=self._report)
        self._profiler.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Sample, batch_idx: int
    ) -> None:
        """Tell the profiler that a batch is over."""
        if self._profiler is not None:
            self._profiler.step()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop it."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def _report(self, profiler: profile) -> None:
        trace = self._folder / "trace.json"
        profiler.export_chrome_trace(str(trace))
        costs = [
            (event.key, event.count, event.self_device_time_total if self._on_gpu else event.self_cpu_time_total)
            for event in profiler.key_averages()
            if not event.is_user_annotation  # marks of whole steps, whose own time is Python's
        ]
        whole = sum(microseconds for _, _, microseconds in costs)
        device = "GPU" if self._on_gpu else "CPU"
        table = Table(title=f"the {self.rows} costliest operations of {self.steps} batches, own time on the {device}")
        for column in ("operation", "calls", "ms", "%"):
            table.add_column(column, justify="left" if column == "operation" else "right")
        for name, calls, microseconds in sorted(costs, key=lambda cost: -cost[2])[: self.rows]:
            table.add_row(Text(name), str(calls), f"{microseconds / 1000:.2f}", f"{100 * microseconds / max(whole, 1e-9):.1f}")
        console = readable_console()
        console.print(table)
        console.print(Text(f"wrote {os.path.relpath(trace)}: open it in chrome://tracing or ui.perfetto.dev"), soft_wrap=True)


class FirstNonFinite(lightning.Callback):
    """Ends a run at the first module of the network, or the loss, that puts out a number that is not finite, in training.

    It stands beside `trainer.detect_anomaly`, which sees only gradients of NaN: forward passes give infinities as well, and an L1 loss of
    NaN has a gradient of 0.
    """

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Watch every module, inner ones first, as they end first."""

        def watch(name: str, module: nn.Module) -> None:
            def check(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
                if trainer.training and not _finite(output):
                    raise UserError(
                        f"step {trainer.global_step + 1}: {name} ({type(module).__name__}) is the first to put out a number that is not "
                        f"finite; largest input {_largest(inputs):.4g}, largest parameter {_largest(tuple(module.parameters())):.4g}"
                    )

            self._hooks.append(module.register_forward_hook(check))

        for name, module in pl_module.named_modules():
            if name.startswith(("network.", "loss")) or name == "network":
                watch(name.removeprefix("network."), module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop watching."""
        for hook in self._hooks:
            hook.remove()


def _tensors(values: Any) -> list[Tensor]:
    """The floating-point tensors of a module's inputs or output."""
    values = values if isinstance(values, tuple | list) else (values,)
    return [value.detach() for value in values if isinstance(value, Tensor) and value.is_floating_point()]


def _finite(values: Any) -> bool:
    return all(bool(value.isfinite().all()) for value in _tensors(values))


def _largest(values: Any) -> float:
    return max((value.float().abs().max().item() for value in _tensors(values) if value.numel()), default=float("nan"))
