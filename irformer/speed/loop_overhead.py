"""Whole steps of the training loop, with data, logging, guard, averaging and probe at their defaults, against bare training steps."""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from irformer.config.compose import compose
from irformer.reporting.tables import Cell, Number, ResultTable
from irformer.speed.alternatives import Setting, milliseconds
from irformer.speed.measure import Timing, ratio, synchronize, time_once
from irformer.speed.training_step import Step, TrainingStep, build_step_optimizer
from irformer.speed.verdicts import Finding, find_target
from irformer.training.build import build_run
from irformer.training.callbacks.step_times import StepTimes

CASES = (Step("swinir_light", 2, 4, 48),)
QUICK = (Step("swinir_tiny", 2, 2, 16),)
BLOCK = 10  # steps; ten blocks contain one probe and two loggings, as often as these happen in a run


@dataclass(frozen=True)
class LoopTimes:
    """Times of whole and bare steps.

    Args:
        work: the step in words.
        timings: seconds per step of each block: `loop`, `bare step`.
        ratio: throughput of the loop over that of bare steps; a ratio of means, because the probe runs in one block of ten.
    """

    work: str
    timings: tuple[Timing, Timing]
    ratio: Finding


def time_loop(case: Step, precision: str, device: torch.device, rounds: int, folder: Path) -> LoopTimes:
    """Train in a folder, and take bare steps of the same network between blocks of steps.

    Args:
        case: the step; its scale is that of super-resolution.
        precision: `fp32` or `bf16`.
        device: CPU or GPU.
        rounds: number of blocks of `BLOCK` steps.
        folder: folder for the run.
    """
    words = [f"model={case.model}", f"task=sr_x{case.scale}", f"batch_size={case.batch}", f"patch_size={case.patch}", "data=sample"]
    trainer = [
        "trainer=gpu" if device.type == "cuda" else "trainer=cpu",
        f"trainer.precision={precision}",
        "+trainer.limit_val_batches=0",
        f"trainer.max_steps={2 * BLOCK * (rounds + 1)}",
    ]
    run = build_run(compose("train", [*words, *trainer, f"paths.runs={folder}", "name=loop"]), folder / "loop")
    network = copy.deepcopy(run.module.network).to(device)
    setting = Setting("ln", precision)
    step = TrainingStep(network, build_step_optimizer(network, case.model, setting), setting, case, device)
    step()
    synchronize(device)
    bare: list[float] = []
    times = StepTimes(BLOCK, rounds, lambda: bare.append(time_once(step, BLOCK, device)))
    run.trainer.callbacks.append(times)  # type: ignore[attr-defined]
    run.trainer.fit(run.module, run.data)
    timings = Timing("loop", tuple(times.seconds)), Timing("bare step", tuple(bare))
    name, work = "loop / bare step", f"loop {case.title.removeprefix('train ')}{'' if precision == 'fp32' else f', {precision}'}"
    throughput = ratio(timings[1], timings[0], by_mean=True)  # seconds per step, so inverted
    return LoopTimes(work, timings, Finding(name, work, throughput, find_target(work, name, device.type)))


def loop_table(results: list[LoopTimes]) -> ResultTable:
    """Return the table of several measurements."""
    header = ["work", "loop, ms per step", "bare step, ms", "throughput of the loop / bare steps"]
    rows: list[list[Cell]] = []
    for result in results:
        means = (milliseconds(sum(timing.seconds) / len(timing.seconds)) for timing in result.timings)
        rows.append([result.work, *means, Number(result.ratio.found.median, 3)])
    return ResultTable("Training loop at its defaults", header, rows)
