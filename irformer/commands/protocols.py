"""Evaluate every task without a network on all available test sets and update a page's table: python scripts/protocols.py [PAGE]."""

import os
from pathlib import Path

from irformer.commands import command_line
from irformer.commands.command_line import END, START
from irformer.commands.common import reporting_user_errors
from irformer.config.compose import compose, instantiate
from irformer.config.tasks import complete_tasks
from irformer.core.files import write_atomically
from irformer.data.test_sets import available_test_sets
from irformer.errors import UserError
from irformer.evaluation.evaluate import evaluate
from irformer.evaluation.restorers import baseline
from irformer.reporting.page import metric_numbers, readable_console
from irformer.reporting.tables import Cell, Number, ResultTable
from irformer.tasks.task import Task


def protocols() -> None:
    """Evaluate every task without a network on all available test sets and update a page's table."""
    arguments = command_line.protocols().parse_args()
    root = Path(os.environ.get("IRFORMER_DATA", "data"))
    with reporting_user_errors("benchmark"):
        if arguments.tasks:
            measure_all(arguments.tasks, root).show(readable_console())
            return
        page = arguments.page.read_text(encoding="utf-8") if arguments.page.is_file() else ""
        if START not in page or END not in page:
            raise UserError(f"{arguments.page}: expected a page with the lines {START} and {END}")
        table = measure_all(complete_tasks(), root)
    before, after = page.partition(START)[0], page.partition(END)[2]
    written = f"{before}{START}\n\n{table.markdown()}\n{END}{after}"
    write_atomically(arguments.page, lambda temporary: temporary.write_text(written, encoding="utf-8"))
    table.show(readable_console())


def measure_all(names: list[str], root: Path) -> ResultTable:
    """Return a table with one row for each task and test set.

    Args:
        names: names of the tasks.
        root: the data folder.
    """
    rows: list[list[Cell]] = []
    remarks: list[str] = []
    for name in names:
        task: Task = instantiate(compose("benchmark", [f"task={name}", "checkpoint=none"]).task)
        untrained, restorer = baseline(task)
        rule = ", ".join(str(value) for key, value in task.protocol.as_dict().items() if key not in ("border", "padding", "metrics"))
        for test_set in available_test_sets(task.test_sets, root, task):
            result = evaluate(restorer, test_set)
            metrics = " / ".join(task.protocol.metrics)
            source = "files" if result.lq_source == "files" else "made"
            values = metric_numbers(result.metrics, task.protocol.metrics)
            rows.append([name, rule, untrained, result.name, Number(len(test_set)), source, metrics, values])
            remarks += result.remarks
    header = ["task", "rule", "restorer", "test set", "images", "LQ", "metrics", "result"]
    return ResultTable("All tasks on the available test sets", header, rows, [f"- {remark}" for remark in dict.fromkeys(remarks)])
