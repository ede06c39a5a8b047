"""Pages are written from records alone, the same records give the same bytes, and what a page says follows from the numbers."""

import csv
from pathlib import Path

import pytest
from rich.console import Console
from synthetic import noise, norm_of, write_records

from irformer.errors import UserError
from irformer.experiments.budgets import CPU, GPU
from irformer.experiments.checks import RULE
from irformer.experiments.laboratory import EXPERIMENTS, Order, conduct, overview, state
from irformer.experiments.planning import plan_runs

PLANTED = 1000.0


def magnitude(run, step: int) -> float:
    """As in the paper: it grows with LayerNorm, RMSNorm and LayerScale."""
    diverges = norm_of(run).name in ("ln", "rms", "layerscale") and norm_of(run).ends in ("ln", "same")
    return (1 + (PLANTED - 1) * step / run.steps if diverges else 1.0) * 10 ** noise(run, 0.02)


def entropy(run, step: int) -> float:
    return 3.5 - 0.5 * (magnitude(run, step) > 10) + noise(run, 0.01)


def psnr(run, step: int) -> float:
    return 30 + (0.2 if norm_of(run).name == "iln" else 0.0) + noise(run, 0.005)


VERDICTS = {
    "control": "not visible at this budget",  # blocks and ends matter only together here
    "figure1": "agrees",
    "figure2": "agrees",
    "figure4": "agrees",
    "figure7": "not visible at this budget",
    "figure8": "agrees",
    "figure14": "agrees",
    "table1": "agrees",
    "table2": "agrees",
    "table3": "agrees",
    "table4": "not visible at this budget",  # both keep their PSNR in fp16
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_claim_has_a_page_a_table_and_figures(name, tmp_path):
    experiment = EXPERIMENTS[name]
    write_records([experiment], CPU, tmp_path, magnitude, entropy, psnr)
    conduct(Order([name], CPU, out=tmp_path), Console(quiet=True))
    page = (tmp_path / f"{name}.md").read_text()
    assert experiment.claim in page
    assert RULE in page
    assert f"    python scripts/reproduce.py {name} budget=cpu\n" in page
    assert "Test CPU" in page
    assert "nan" not in page
    assert (tmp_path / f"{name}.png").stat().st_size > 5000
    assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")
    with (tmp_path / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({(row["arm"], row["seed"]) for row in rows if row["arm"]}) == len(plan_runs(experiment.arms(CPU), CPU))
    finding = state(experiment, CPU, tmp_path).finding
    assert finding.verdict in page.lower()
    if name in VERDICTS:
        assert finding.verdict == VERDICTS[name], finding.sentence
    index = (tmp_path / "README.md").read_text()
    assert f"[{name}]({name}.md)" in index
    assert finding.sentence in index
    assert all(other in index for other in EXPERIMENTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pages of two claims."""
    out = tmp_path_factory.mktemp("results")
    write_records([EXPERIMENTS["figure1"], EXPERIMENTS["figure9"]], CPU, out, magnitude, entropy, psnr)
    conduct(Order(["figure1", "figure9"], CPU, out=out), Console(quiet=True))
    return out


def test_figure1_has_surfaces_to_turn(folder):
    assert "(figure1_surfaces.html)" in (folder / "figure1.md").read_text()
    assert "LayerNorm (official)" in (folder / "figure1_surfaces.html").read_text()


def test_the_same_records_give_the_same_bytes(folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    for name in ("figure1", "figure9", "README"):
        for file in folder.glob(f"{name}[._]*"):
            file.unlink()
    conduct(Order(["figure1", "figure9"], CPU, out=folder), Console(quiet=True))
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before


def test_added_seeds_are_used(tmp_path):
    names = ["figure14"]
    write_records([EXPERIMENTS["figure14"]], CPU, tmp_path, magnitude, entropy, psnr)
    conduct(Order(names, CPU, out=tmp_path), Console(quiet=True))
    assert "0, 1, 2 " in (tmp_path / "figure14.md").read_text()
    write_records([EXPERIMENTS["figure14"]], CPU, tmp_path, magnitude, entropy, psnr, seeds=5)
    conduct(Order(names, CPU, seeds=5, out=tmp_path), Console(quiet=True))
    page = (tmp_path / "figure14.md").read_text()
    assert "0, 1, 2, 3, 4 " in page
    assert "    python scripts/reproduce.py figure14 budget=cpu seeds=5\n" in page


def test_further_seeds_of_a_shared_arm_are_explained(tmp_path):
    write_records([EXPERIMENTS["figure1"]], CPU, tmp_path, magnitude, entropy, psnr)
    write_records([EXPERIMENTS["figure11"]], CPU, tmp_path, magnitude, entropy, psnr)  # five seeds of two of the three arms
    conduct(Order(["figure1"], CPU, out=tmp_path), Console(quiet=True))
    page = (tmp_path / "figure1.md").read_text()
    assert "    python scripts/reproduce.py figure1 budget=cpu\n" in page
    assert "Arms with more seeds than others share them with other claims." in page


def test_both_budgets_stand_on_one_page(tmp_path):
    for budget in (CPU, GPU):
        write_records([EXPERIMENTS["table8"]], budget, tmp_path, magnitude, entropy, psnr)
    conduct(Order(["table8"], GPU, out=tmp_path), Console(quiet=True))
    page = (tmp_path / "table8.md").read_text()
    assert page.index("## Measured at budget cpu") < page.index("(table8.png)") < page.index("## Measured at budget gpu")
    assert (tmp_path / "table8_gpu.png").is_file()
    assert "budget gpu" in (tmp_path / "README.md").read_text()


def test_a_missing_run_gives_no_verdict(tmp_path):
    write_records([EXPERIMENTS["figure14"]], CPU, tmp_path)
    run = plan_runs(EXPERIMENTS["figure14"].arms(CPU), CPU)[0]
    (tmp_path / "data" / "cpu" / run.name / "results.json").unlink()
    found = state(EXPERIMENTS["figure14"], CPU, tmp_path)
    assert (found.finding, found.text) == (None, "17 of 18 runs")


def test_a_record_of_another_configuration_is_refused(tmp_path):
    write_records([EXPERIMENTS["figure14"]], CPU, tmp_path)
    run = plan_runs(EXPERIMENTS["figure14"].arms(CPU), CPU)[0]
    file = tmp_path / "data" / "cpu" / run.name / "config.yaml"
    file.write_text(file.read_text().replace("patch_size: 24", "patch_size: 32"))
    with pytest.raises(UserError, match="another configuration: patch_size is 32 there and 24 here; remove it"):
        state(EXPERIMENTS["figure14"], CPU, tmp_path)


def test_the_list_has_cost_and_state_of_every_claim(folder):
    table = overview(folder)
    rows = {row[0]: [str(cell) for cell in row] for row in table.texts}
    assert list(rows) == list(EXPERIMENTS)
    assert rows["figure1"][4].endswith("; agrees")
    assert rows["figure1"][5].endswith("0 of 9 runs")
    assert all("min" in row[4] or " h" in row[4] for row in rows.values())
