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
from irformer.errors import UserError
from irformer.models.interface import evaluation_mode
from irformer.reporting.page import readable_console


class Overfit(lightning.Callback):
    """Trains on a single batch until the network restores it with a given PSNR; a network, loss or optimizer that cannot is broken.

    The PSNR is 10 log10(1 / MSE) over all pixels and channels of the batch in [0, 1], clamped but not rounded, with the raw weights in
    evaluation mode. It is measured on training data and is not comparable with benchmark results.

    Args:
        psnr: PSNR in dB at which training stops.
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
        """Measure every few steps, and stop when the PSNR is reached."""
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
        """Fail a run that has not reached the PSNR.

        Raises:
            UserError: the PSNR was not reached.
        """
        if self.psnr < self.target:
            raise UserError(
                f"overfit: {self.psnr:.1f} dB on one batch after {self.steps} steps, expected {self.target:g} dB: the network, the loss or "
                f"the optimizer does not fit even one batch, or needs more trainer.max_steps or another optim.lr"
            )

    def closing_lines(self) -> list[str]:
        """Return the lines to print at the end of the run."""
        return [f"overfit: {self.psnr:.1f} dB on one batch after {self.steps} steps"]


class TorchProfile(lightning.Callback):
    """Profiles some training steps with torch.profiler; writes trace.json to the run's folder and prints the most expensive operations.

    Open the trace in chrome://tracing or ui.perfetto.dev. The table shows each operation's self time, without the operations it calls, on
    the GPU if there is one. Only the main process is profiled.

    Args:
        skip: batches before profiling starts, for libraries and allocators to warm up.
        steps: batches to profile.
        rows: operations in the table.
    """

    def __init__(self, skip: Annotated[int, Ge(0)] = 3, steps: Annotated[int, Ge(1)] = 5, rows: Annotated[int, Ge(1)] = 10) -> None:
        self.skip = skip
        self.steps = steps
        self.rows = rows
        self._profiler: profile | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the profiler.

        Raises:
            UserError: training has too few batches to profile.
        """
        batches = (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
        if batches < self.skip + self.steps:
            raise UserError(
                f"debug=profile needs {self.skip + self.steps} batches (callbacks.profile.skip and .steps), but training has {batches}: "
                f"increase trainer.max_steps"
            )
        if not trainer.is_global_zero:
            return
        self._folder = Path(trainer.default_root_dir)
        self._on_gpu = trainer.strategy.root_device.type == "cuda"
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self._on_gpu
        # The profiler's own warm-up takes the batch before the first profiled one.
        phases = schedule(skip_first=max(0, self.skip - 1), wait=0, warmup=min(1, self.skip), active=self.steps, repeat=1)
        self._profiler = profile(activities=activities, schedule=phases, on_trace_ready=self._report)
        self._profiler.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Sample, batch_idx: int
    ) -> None:
        """Advance the profiler by one batch."""
        if self._profiler is not None:
            self._profiler.step()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop the profiler."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def _report(self, profiler: profile) -> None:
        trace = self._folder / "trace.json"
        profiler.export_chrome_trace(str(trace))
        costs = [
            (event.key, event.count, event.self_device_time_total if self._on_gpu else event.self_cpu_time_total)
            for event in profiler.key_averages()
            if not event.is_user_annotation  # annotations of whole steps, whose self time is Python's
        ]
        whole = sum(microseconds for _, _, microseconds in costs)
        device = "GPU" if self._on_gpu else "CPU"
        table = Table(title=f"the {self.rows} most expensive operations of {self.steps} batches, self time on the {device}")
        for column in ("operation", "calls", "ms", "%"):
            table.add_column(column, justify="left" if column == "operation" else "right")
        for name, calls, microseconds in sorted(costs, key=lambda cost: -cost[2])[: self.rows]:
            table.add_row(Text(name), str(calls), f"{microseconds / 1000:.2f}", f"{100 * microseconds / max(whole, 1e-9):.1f}")
        console = readable_console()
        console.print(table)
        console.print(Text(f"wrote {os.path.relpath(trace)}: open it in chrome://tracing or ui.perfetto.dev"), soft_wrap=True)


class FirstNonFinite(lightning.Callback):
    """Ends training at the first module of the network, or the loss, whose output is not finite.

    It complements `trainer.detect_anomaly`, which detects only NaN gradients: forward passes also produce infinities, and a NaN L1 loss has
    a gradient of 0.
    """

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Register a hook on every module; inner modules finish first and are checked first."""

        def watch(name: str, module: nn.Module) -> None:
            def check(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
                if trainer.training and not _finite(output):
                    raise UserError(
                        f"step {trainer.global_step + 1}: {name} ({type(module).__name__}) is the first module with an output that is not "
                        f"finite; largest input {_largest(inputs):.4g}, largest parameter {_largest(tuple(module.parameters())):.4g}"
                    )

            self._hooks.append(module.register_forward_hook(check))

        for name, module in pl_module.named_modules():
            if name.startswith(("network.", "loss")) or name == "network":
                watch(name.removeprefix("network."), module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()


def _tensors(values: Any) -> list[Tensor]:
    """Return the floating-point tensors in a module's inputs or output."""
    values = values if isinstance(values, tuple | list) else (values,)
    return [value.detach() for value in values if isinstance(value, Tensor) and value.is_floating_point()]


def _finite(values: Any) -> bool:
    return all(bool(value.isfinite().all()) for value in _tensors(values))


def _largest(values: Any) -> float:
    return max((value.float().abs().max().item() for value in _tensors(values) if value.numel()), default=float("nan"))
