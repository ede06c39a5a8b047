"""docs/models.md, docs/norms.md and docs/tasks.md are what the configurations and classes say."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from irformer import create_model
from irformer.commands.tables import HEIGHT, WIDTH, models_page, normalizes_over, norms_page, tasks_page
from irformer.config.compose import instantiate, norm_config
from irformer.models.flops import count_flops

DOCS = Path(__file__).parent.parent / "docs"


def published(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_page_of_models_is_up_to_date():
    """The FLOPs of the large networks are counted again in a slow test."""
    page = published("models.md")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    large = {row[0].strip("| `"): row[4] for row in rows if row[3].endswith(" M") and float(row[3].split()[0]) > 0.5}
    assert 0 < len(large) < len(rows)
    assert models_page(large) == page, "run make tables"


def test_the_readme_has_the_numbers_of_the_page():
    lines = (line.split(" | ") for line in published("models.md").splitlines() if line.startswith("| `"))
    rows = {row[0].strip("| "): (row[3], row[4]) for row in lines}
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    found = [line.split(" | ") for line in readme.splitlines() if line.startswith(tuple(f"| {name}" for name in rows)) and " M" in line]
    assert len(found) == 4
    for names, parameters, flops, _ in found:
        expected = [rows[name] for name in names.strip("| ").split(", ")]
        assert parameters.split(", ") == [row[0] for row in expected]
        assert flops.split(", ") == [row[1] for row in expected]


@pytest.mark.slow
def test_the_page_of_models_is_up_to_date_in_all_cells():
    assert models_page() == published("models.md"), "run make tables"


def test_the_page_of_norms_is_up_to_date():
    assert norms_page() == published("norms.md"), "run make tables"


def test_the_page_of_tasks_is_up_to_date():
    assert tasks_page() == published("tasks.md"), "run make tables"


@pytest.mark.parametrize("name", ["hat_tiny", "restormer_tiny"])
def test_flops_from_two_tiles_equal_those_of_the_whole_image(name):
    network = create_model(name).eval()
    height, width = HEIGHT // network.scale, WIDTH // network.scale
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.to("meta")(torch.empty(1, 3, height, width, device="meta"))
    assert count_flops(create_model(name).eval(), height, width) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("norm", "values"),
    [
        ("ln", "channels of a token"),
        ("iln", "tokens and channels of an image"),
        ("instance", "tokens of a channel of an image"),
        ("batch", "batch and tokens of a channel"),
        ("dyt", "nothing"),
    ],
)
def test_what_a_norm_normalizes_over_is_measured(norm, values):
    assert normalizes_over(instantiate(norm_config(norm)).block(4)) == values
