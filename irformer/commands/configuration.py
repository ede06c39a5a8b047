"""Generate the reference of all configuration keys: python scripts/configuration.py [PAGE]."""

from irformer.commands import command_line
from irformer.core.files import write_atomically
from irformer.core.folders import CONFIGS
from irformer.schema.reference import configuration_page


def configuration() -> None:
    """Write the page of all configuration keys: python scripts/configuration.py [PAGE]."""
    page = command_line.configuration().parse_args().page
    text = configuration_page(CONFIGS)
    write_atomically(page, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    print(f"wrote {page}")
