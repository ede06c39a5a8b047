"""The documentation site builds without warnings, and its pages load nothing from other servers."""

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
# Elements that a browser loads on its own, and their attribute. A link that a reader clicks is none of them.
LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


class Requests(HTMLParser):
    """Collects addresses on other servers that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        address = dict(attrs).get(LOADED.get(tag, "")) or ""
        if re.match(r"(https?:)?//", address):
            self.found.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'irformer[docs]'")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


def test_every_page_is_built_and_reachable(site):
    pages = {page.stem for page in (REPOSITORY / "docs").glob("*.md")}
    assert {page.stem for page in site.glob("*.html")} - {"404"} == pages
    linked = set(re.findall(r'href="(\w+)\.html', (site / "index.html").read_text(encoding="utf-8")))
    assert pages - {"index"} <= linked


def test_an_interactive_page_is_not_replaced_by_a_page_of_its_name(site):
    results = REPOSITORY / "docs" / "results"
    pages = list(results.glob("*.html"))
    assert pages
    for page in pages:
        assert (site / "results" / page.name).read_bytes() == page.read_bytes(), page.name


def test_pages_load_nothing_from_other_servers(site):
    for page in [*site.glob("*.html"), *site.glob("results/*.html")]:
        parser = Requests()
        parser.feed(page.read_text(encoding="utf-8"))
        assert not parser.found, page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_the_api_page_holds_signatures_and_docstrings(site):
    text = (site / "api.html").read_text(encoding="utf-8")
    for name in ("irformer.create_model", "irformer.norms.ILN"):
        assert f'id="{name}"' in text


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", REPOSITORY / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_flowcharts_are_drawn(hooks):
    page = 'text\n\n```mermaid\nflowchart BT\n  a --> b --> c["c: last"]\n  a --> c\n```\n\nmore\n'
    drawn = hooks.on_page_markdown(page)
    assert drawn.startswith("text\n\n<svg ")
    assert drawn.endswith("</svg>\n\nmore\n")
    assert re.findall(r"<text [^>]*>([^<]*)</text>", drawn) == ["a", "b", "c: last"]
    assert drawn.count("<line ") == 3
    height = {label: float(y) for y, label in re.findall(r'<text [^>]*y="(\d+)"[^>]*>([^<]*)<', drawn)}
    assert height["a"] > height["b"] > height["c: last"], "the first row is at the bottom"


@pytest.mark.parametrize(("chains", "reason"), [("a --> b\nb --> a", "cycle"), ("a -- b", "expected a chain")])
def test_a_flowchart_that_cannot_be_drawn_is_refused(hooks, chains, reason):
    with pytest.raises(ValueError, match=reason):
        hooks.flowchart(chains, "LR")


def test_no_diagram_is_left_as_text(site):
    assert "flowchart" not in re.sub(r"<svg .*?>", "", (site / "architecture.html").read_text(encoding="utf-8"))


def test_links_of_the_readme_lead_to_files():
    """Those of the site are checked by its strict build."""
    for page in ("README.md", "CONTRIBUTING.md", "data/README.md"):
        folder = (REPOSITORY / page).parent
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
        missing = [link for link in links if link and not link.startswith("http") and not (folder / link).exists()]
        assert not missing, page
