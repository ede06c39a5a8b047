"""How fast things are on this machine: python scripts/speed.py data|memory."""

import tempfile
from pathlib import Path

from rich.table import Table

from irformer.commands import command_line
from irformer.commands.common import telling_mistakes
from irformer.config.compose import compose, instantiate, options
from irformer.reporting.page import readable_console
from irformer.speed.pipeline import HQ_PATCH, Rate, SyntheticSet, data_rates, memory_over_batches
from irformer.tasks.task import Task

# From the packed store on one core: pairs a second with LR in the store, how much more that is than from files, and JPEG samples a second.
_WANTED_PAIRS, _WANTED_OVER_SUB_IMAGES, _WANTED_OVER_FILES, _WANTED_JPEG = 3000, 20, 200, 1000


def speed() -> None:
    """Measure on this machine: python scripts/speed.py data|memory."""
    arguments = command_line.speed().parse_args()
    with telling_mistakes(), tempfile.TemporaryDirectory(prefix="irformer-speed-") as folder:
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
    table = Table(title=f"Training samples (HQ {HQ_PATCH}x{HQ_PATCH}) in a second of one core's time", title_justify="left")
    for column in ("from", "task", "LQ", "a second", "ms each", "the store gives"):
        table.add_column(column, justify="right" if column in ("a second", "ms each", "the store gives") else "left")
    store, sub_images, files, *_ = rates
    for rate in rates:
        same_work = rate.task == store.task and rate.lq != "made on the fly" and rate is not store
        ratio = f"{store.per_second / rate.per_second:,.0f} times as many" if same_work else ""
        table.add_row(rate.source, rate.task, rate.lq, f"{rate.per_second:,.0f}", f"{1000 / rate.per_second:.3f}", ratio)
    console = readable_console()
    console.print(table)
    checks = [
        ("pairs a second from the store", store.per_second, _WANTED_PAIRS),
        ("times sub-image files", store.per_second / sub_images.per_second, _WANTED_OVER_SUB_IMAGES),
        ("times whole files", store.per_second / files.per_second, _WANTED_OVER_FILES),
        *((f"{rate.task} samples a second", rate.per_second, _WANTED_JPEG) for rate in rates if rate.task.startswith("jpeg")),
    ]
    for name, found, wanted in checks:
        console.print(f"{name}: {found:,.0f}, wanted {wanted:,}: {'reached' if found >= wanted else 'NOT REACHED'}", highlight=False)


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
