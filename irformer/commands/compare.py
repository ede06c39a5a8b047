"""Compare runs or benchmarks: python scripts/compare.py runs/SWEEP|BENCHMARK [OTHER ...] [--by norm] [--metric psnr_y]."""

from rich.text import Text

from irformer.commands import command_line
from irformer.commands.common import reporting_user_errors
from irformer.reporting.page import readable_console
from irformer.runs.comparison import compare
from irformer.runs.comparison_page import write_comparison_page


def compare_runs() -> None:
    """Compare runs or benchmarks: python scripts/compare.py runs/SWEEP|BENCHMARK [OTHER ...] [--by norm] [--metric psnr_y]."""
    arguments = command_line.compare().parse_args()
    console = readable_console()
    with reporting_user_errors():
        comparison = compare(arguments.folders, arguments.metric, arguments.by, arguments.test_set, arguments.reference)
        for table in comparison.tables():
            table.show(console)
        for table in comparison.image_tables() if sum(len(part.differences) for part in comparison.sets) == 1 else ():
            table.show(console)
        for note in comparison.notes:
            console.print(Text(note))
        if arguments.out:
            page = arguments.out / "report.html"
            files = [*comparison.write(arguments.out), page]
            write_comparison_page(page, comparison, arguments.folders)
            for file in files:
                console.print(Text(f"wrote {file}"), soft_wrap=True)
