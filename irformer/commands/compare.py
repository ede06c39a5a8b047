"""Set the arms of a sweep against each other: python scripts/compare.py runs/SWEEP [runs/OTHER ...] [--by norm] [--metric psnr_y]."""

import argparse
from pathlib import Path

from rich.text import Text

from irformer.commands.common import telling_mistakes
from irformer.reporting.page import readable_console
from irformer.runs.comparison import compare


def compare_runs() -> None:
    """Set the arms of a sweep against each other: python scripts/compare.py runs/SWEEP [runs/OTHER ...] [--by norm] [--metric psnr_y]."""
    parser = argparse.ArgumentParser(
        description="Means and deviations over seeds, and the paired differences of arms (runs that are equal in everything but the seed) "
        "with 95 % intervals over seeds and images. Unreadable runs are named and left out. irformer.runs.comparison defines every number."
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of a sweep or a run; all runs below it are read")
    parser.add_argument("--metric", help="psnr_y, ssim_y, ...; the default is the first of the task's protocol")
    parser.add_argument("--test-set", help="only this one")
    parser.add_argument("--by", metavar="KEY", help="only arms that differ in this key or group (norm, optim.lr) and in nothing else")
    parser.add_argument("--reference", metavar="ARM", help="only differences to this arm, by its label or a value that only it has")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write compare.md and compare.json there too")
    arguments = parser.parse_args()
    console = readable_console()
    with telling_mistakes():
        comparison = compare(arguments.folders, arguments.metric, arguments.by, arguments.test_set, arguments.reference)
        for table in comparison.tables():
            table.show(console)
        for note in comparison.notes:
            console.print(Text(note))
        for file in comparison.write(arguments.out) if arguments.out else ():
            console.print(Text(f"wrote {file}"), soft_wrap=True)
