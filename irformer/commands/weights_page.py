"""The page of the weights in the package: docs/results/weights.md, from their files and from the results of their benchmarks."""

from collections.abc import Sequence
from pathlib import Path

from irformer.config.compose import compose, instantiate
from irformer.evaluation.results import Record, read_records
from irformer.reporting.page import benchmark_table
from irformer.reporting.tables import Cell, Number, ResultTable
from irformer.tasks.task import Task
from irformer.weights.bundled import bundled_names
from irformer.weights.checkpoints import load_checkpoint

RESULTS = Path("results/data/weights")
"""Below docs: a folder for each task, with the results.json of the benchmark of all weights of that task."""

_PAGE = """# Weights in the package

This page is generated: `make tables` (`python scripts/tables.py`) writes it from the files in the package and from the results of
`scripts/benchmark.py`.

The package contains small networks that were trained with the recipes of this repository. Their names stand for a checkpoint anywhere:

    python scripts/restore.py photo.jpg restored.png                # the default: swinir_tiny_iln_x2
    python scripts/restore.py noisy.png clean.png --checkpoint swinir_tiny_iln_denoise_color_25
    python scripts/benchmark.py checkpoint=swinir_tiny_ln_x2 'test_sets=[Set5]'
    python train.py experiment=swinir_tiny_x2 norm=iln init_from=swinir_tiny_iln_x2

They are examples, not baselines: 0.27 million parameters, trained for 20,000 steps, which take less than an hour of one CPU core. *step*
is that of the best validation, whose weights are kept. Each was trained with one seed, so the difference between `ln` and `iln` is no
evidence for either norm; [claims and verdicts](README.md) compares norms with several seeds. Beside each file in
`irformer/weights/bundled_files` is a model card with the command, the versions and the numbers. License: Apache-2.0.

%s

%s
"""

_TASK = """## %s

    python scripts/benchmark.py 'checkpoint=[%s]' 'test_sets=[%s]'

%s"""


def weights_page(docs: Path) -> str:
    """Return the text of docs/results/weights.md.

    Args:
        docs: the folder docs, which contains the results.
    """
    parts = [_task(read_records(file)) for file in sorted((docs / RESULTS).glob("*/results.json"))]
    return _PAGE % (_networks().markdown().strip(), "\n".join(parts).strip())


def _networks() -> ResultTable:
    rows: list[list[Cell]] = []
    for name in bundled_names():
        checkpoint = load_checkpoint(name)
        parameters = sum(parameter.numel() for parameter in checkpoint.network.parameters())
        megabytes = checkpoint.path.stat().st_size / 1e6
        words = [name, checkpoint.task, checkpoint.model["norm"]["name"]]
        rows.append([*(f"`{word}`" for word in words), f"{parameters:,}", f"{checkpoint.step or 0:,}", Number(megabytes, 2)])
    return ResultTable("Weights", ["name", "task", "norm", "parameters", "step", "file, MB"], rows)


def _task(records: Sequence[Record]) -> str:
    """Return the section of a task, with the command that measures it."""
    task: Task = instantiate(compose("benchmark", [f"task={records[0].task}", "checkpoint=none"]).task)
    table = benchmark_table(task, {record.label: list(record.test_sets.values()) for record in records})
    checkpoints = ",".join(record.checkpoint for record in records)
    sets = ",".join(dict.fromkeys(name for record in records for name in record.test_sets))
    return _TASK % (table.title, checkpoints, sets, table.markdown())
