"""Measure speed and memory on this machine: python scripts/speed.py data|memory."""

import tempfile
from pathlib import Path

from rich.table import Table

from irformer.commands import command_line
from irformer.commands.common import reporting_user_errors
from irformer.config.compose import compose, instantiate, options
from irformer.reporting.page import readable_console
from irformer.speed.pipeline import HQ_PATCH, Rate, SyntheticSet, data_rates, memory_over_batches
from irformer.tasks.task import Task

# Targets for the packed store on one core: pairs per second with stored LR, speedup over files, and JPEG samples per second.
_TARGET_PAIRS, _TARGET_OVER_SUB_IMAGES, _TARGET_OVER_FILES, _TARGET_JPEG = 3000, 20, 200, 1000


def speed() -> None:
    """Measure on this machine: python scripts/speed.py data|memory."""
    arguments = command_line.speed().parse_args()
    with reporting_user_errors(), tempfile.TemporaryDirectory(prefix="irformer-speed-") as folder:
        print("making images of the size of DIV2K's")
        images = SyntheticSet(Path(folder))
        if arguments.what == "data":
            _data(images, arguments.seconds)
        else:
            _memory(images, arguments.batches, arguments.workers, arguments.files)


def _data(images: SyntheticSet, seconds: float) -> None:
    rates: list[Rate] = []
    jpeg = [_task(name) for name in options("task") if name.startswith("jpeg") and name.endswith("40")]
    data_rates(images, _task("sr_x2"), jpeg, seconds, rates.append)
    table = Table(title=f"Training samples (HQ {HQ_PATCH}x{HQ_PATCH}) per second of one core's CPU time", title_justify="left")
    for column in ("source", "task", "LQ", "per second", "ms each", "speedup of the store"):
        table.add_column(column, justify="right" if column in ("per second", "ms each", "speedup of the store") else "left")
    store, sub_images, files, *_ = rates
    for rate in rates:
        same_work = rate.task == store.task and rate.lq != "made on the fly" and rate is not store
        ratio = f"{store.per_second / rate.per_second:,.0f}x" if same_work else ""
        table.add_row(rate.source, rate.task, rate.lq, f"{rate.per_second:,.0f}", f"{1000 / rate.per_second:.3f}", ratio)
    console = readable_console()
    console.print(table)
    checks = [
        ("pairs per second from the store", store.per_second, _TARGET_PAIRS),
        ("speedup over sub-image files", store.per_second / sub_images.per_second, _TARGET_OVER_SUB_IMAGES),
        ("speedup over whole files", store.per_second / files.per_second, _TARGET_OVER_FILES),
        *((f"{rate.task} samples per second", rate.per_second, _TARGET_JPEG) for rate in rates if rate.task.startswith("jpeg")),
    ]
    for name, found, target in checks:
        console.print(f"{name}: {found:,.0f}, target {target:,}: {'reached' if found >= target else 'NOT REACHED'}", highlight=False)


def _memory(images: SyntheticSet, batches: int, workers: int, files: bool) -> None:
    source = images.files(cache_bytes=1 << 30) if files else images.packed(2, lq=True)
    totals = []

    def show(read: int, own: list[float], mapped: float) -> None:
        totals.append(sum(own))
        each = " + ".join(f"{mebibytes:.0f}" for mebibytes in own)
        print(f"after {read:6,} batches: {sum(own):.0f} MiB in {len(own)} processes ({each}), mapped files {mapped:.0f} MiB", flush=True)

    memory_over_batches(source, _task("sr_x2"), batches, workers, show)
    print(f"from the first tenth to the last: {totals[-1] - totals[0]:+.1f} MiB")


def _task(name: str) -> Task:
    task: Task = instantiate(compose("train", [f"task={name}"]).task)
    return task
