"""Show what a checkpoint is and which precision is safe for it: python scripts/inspect.py CHECKPOINT [--json FILE] [--page FILE]."""

import json
import sys

from tqdm import tqdm

from irformer.commands import command_line
from irformer.commands.common import device, reporting_user_errors, require_not_checkpoint
from irformer.core.files import require_writable, write_atomically
from irformer.core.trust import Trust
from irformer.inspection.checkpoint_report import STAGES, Inspection, inspect_checkpoint
from irformer.inspection.inspection_page import write_inspection_page
from irformer.inspection.inspection_tables import facts, tables
from irformer.reporting.page import readable_console
from irformer.weights.checkpoints import load_checkpoint
from irformer.weights.hub import fetch_card, hub_address
from irformer.weights.licenses import license_of


def inspect() -> None:
    """Show what a checkpoint is and which precision is safe for it: python scripts/inspect.py CHECKPOINT [--json FILE] [--page FILE]."""
    arguments = command_line.inspect().parse_args()
    with reporting_user_errors():
        for file in (arguments.json, arguments.page):
            if file is not None and str(file) != "-":
                require_writable(file.parent)
        checkpoint = load_checkpoint(arguments.checkpoint, trust=Trust(arguments.trust))
        for option, file in (("--json ", arguments.json), ("--page ", arguments.page)):
            if file is not None:
                require_not_checkpoint(file, checkpoint.path, option)
        address = hub_address(arguments.checkpoint)
        stated = license_of(checkpoint.path, None if address is None else fetch_card(address))
        with tqdm(total=len(STAGES), disable=None, leave=False) as bar:  # large networks take minutes on a CPU

            def stage(name: str) -> None:
                bar.set_description(name)
                bar.update()

            found = inspect_checkpoint(checkpoint, arguments.size, device(arguments.device), stated, stage)
        text = json.dumps(found.as_dict(), indent=1, allow_nan=False) + "\n"
        if str(arguments.json) == "-":
            sys.stdout.write(text)
        else:
            _show(found)
            if arguments.json is not None:
                write_atomically(arguments.json, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        if arguments.page is not None:
            write_inspection_page(arguments.page, found)
    for written in (arguments.json, arguments.page):
        if written is not None and str(arguments.json) != "-":
            print(f"wrote {written}")


def _show(found: Inspection) -> None:
    """Print an inspection; the verdict is the last line."""
    console = readable_console()
    told = facts(found)
    width = max(map(len, told))
    for name, value in told.items():
        console.print(f"{name:<{width}}  {value}", highlight=False, markup=False, soft_wrap=True)
    for table in tables(found):
        console.print()
        table.show(console)
    console.print(f"\nverdict: {found.verdict.words}: {found.verdict.reason}", highlight=False, markup=False, soft_wrap=True)
