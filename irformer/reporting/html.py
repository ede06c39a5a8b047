"""Self-contained HTML files: templates, assets that they embed, and JSON for their scripts."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from irformer.core.files import write_atomically


@dataclass(frozen=True)
class Fragment:
    """A part of an HTML page, with what the page must embed for it once.

    Args:
        html: the elements.
        style: the style sheet.
        script: the source of an ES module; empty if it needs none.
    """

    html: Markup
    style: Markup
    script: Markup = Markup("")  # noqa: RUF009 - Markup is immutable


def write_html(path: Path, template: str, **context: object) -> None:
    """Render a template into a file that loads nothing from elsewhere.

    In a template, `asset(NAME)` embeds a style sheet or a script from the templates' folder, and `VALUE | json` embeds a value for
    JSON.parse. Everything else is escaped.

    Args:
        path: the file to write.
        template: name of the template.
        context: the template's variables.
    """
    page = _ENVIRONMENT.get_template(template).render(**context)
    write_atomically(path, lambda temporary: temporary.write_bytes(page.encode("utf-8", "backslashreplace")))


def render(template: str, **context: object) -> Markup:
    """Render a template into a fragment that other templates embed as it is."""
    return Markup(_ENVIRONMENT.get_template(template).render(**context))


def asset(name: str) -> Markup:
    """Return a style sheet or a script from the templates' folder; its braces are not template syntax."""
    text, _, _ = _LOADER.get_source(_ENVIRONMENT, name)
    assert "</" not in text, f"{name}: </ might close the element that embeds the file"
    return Markup(text)


def embedded_json(value: object) -> Markup:
    r"""Return a value as JSON that is safe inside `<script type="application/json">`.

    `<`, `>` and `&` are written as `\u003c`, `\u003e` and `\u0026`, so no text in the value can close the element or open a comment.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def data_uri(content: bytes, kind: str) -> str:
    """Return the content of a file as a data URL of a MIME type such as `image/png`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


_LOADER = jinja2.PackageLoader("irformer.reporting")
_ENVIRONMENT = jinja2.Environment(loader=_LOADER, autoescape=True, trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.globals["asset"] = asset
_ENVIRONMENT.filters["json"] = embedded_json
