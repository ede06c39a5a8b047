"""Write the page of all configuration keys: python scripts/configuration.py [PAGE]."""

import argparse
from pathlib import Path

from irformer.core.files import write_atomically
from irformer.core.folders import CONFIGS
from irformer.schema.reference import configuration_page


def configuration() -> None:
    """Write the page of all configuration keys: python scripts/configuration.py [PAGE]."""
    parser = argparse.ArgumentParser(description="Write the page of all configuration keys from their description.")
    parser.add_argument("page", type=Path, nargs="?", default=Path("docs/configuration.md"))
    page = parser.parse_args().page
    text = configuration_page(CONFIGS)
    write_atomically(page, lambda aside: aside.write_text(text, encoding="utf-8"))
    print(f"wrote {page}")
