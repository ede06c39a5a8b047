"""Pages, tables and figures of the laboratory, written from records alone: the same records give the same bytes."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from irformer.core.files import write_atomically
from irformer.experiments.checks import RULE, Check, Verdict, reason_of, verdict_of
from irformer.experiments.description import Experiment
from irformer.experiments.measured import Measured
from irformer.experiments.result_figures import save_figure
from irformer.reporting.surface import write_surfaces
from irformer.reporting.tables import ResultTable

PAPER = "arXiv 2504.06629"
_GENERATED = "<!-- Written by scripts/reproduce.py from docs/results/data. Change the experiment, not this page. -->"


@dataclass(frozen=True)
class Finding:
    """The result of an experiment at one budget.

    Args:
        measured: the records.
        checks: the conditions of the verdict.
    """

    measured: Measured
    checks: Sequence[Check]

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        return verdict_of(self.checks)

    @property
    def sentence(self) -> str:
        """Verdict and numbers in one sentence."""
        return f"{self.verdict[0].upper()}{self.verdict[1:]}; {reason_of(self.checks)}"


def write_result(experiment: Experiment, findings: Sequence[Finding], out: Path) -> list[Path]:
    """Write NAME.md, NAME.csv and the figures of an experiment.

    Args:
        experiment: the experiment.
        findings: its result at each budget with complete records.
        out: the folder of the pages.
    """
    for finding in findings:
        save_figure(experiment.figure(finding.measured), out / figure_name(experiment, finding))
        if experiment.surfaces:
            _write_surfaces(experiment, finding, out)
    files = {out / f"{experiment.name}.md": _page(experiment, findings), out / f"{experiment.name}.csv": _csv(experiment, findings)}
    for file, text in files.items():
        write_atomically(file, lambda temporary, text=text: temporary.write_text(text, encoding="utf-8"))  # type: ignore[misc]
    return list(files)


def _write_surfaces(experiment: Experiment, finding: Finding, out: Path) -> None:
    """Write the interactive page of the first seed of each arm."""
    measured = finding.measured
    first = {key: by_seed[min(by_seed)] for key, by_seed in measured.records.items()}
    dynamics = {measured.title(key): record.dynamics for key, record in first.items()}
    channels = [int(record.config["model.embed_dim"]) for record in first.values()]
    write_surfaces(
        out / surfaces_name(experiment, finding), dynamics, channels, experiment.title, f"Budget {measured.budget.name}, one seed."
    )


def figure_name(experiment: Experiment, finding: Finding) -> str:
    """Return the name of a figure without its suffix; that of the budget cpu has the name of the experiment."""
    budget = finding.measured.budget.name
    return experiment.name if budget == "cpu" else f"{experiment.name}_{budget}"


def surfaces_name(experiment: Experiment, finding: Finding) -> str:
    """Return the name of the interactive page; in the site, NAME.html is the page of NAME.md."""
    return f"{figure_name(experiment, finding)}_surfaces.html"


def _page(experiment: Experiment, findings: Sequence[Finding]) -> str:
    of_paper = experiment.reference[0] in "FT"  # a figure or a table
    reference = f"{experiment.reference} of the i-LN paper, {PAPER}." if of_paper else f"A control of the i-LN paper, {PAPER}."
    lines = [_GENERATED, f"# {experiment.title}", "", reference, "", "## The claim", "", experiment.claim, ""]
    for finding in findings:
        lines += _section(experiment, finding)
    lines += ["## What would change the verdict", "", experiment.would_change, "", "## The rule", "", RULE]
    return "\n".join(lines) + "\n"


def _section(experiment: Experiment, finding: Finding) -> list[str]:
    measured, budget = finding.measured, finding.measured.budget
    lines = [f"## Measured at budget {budget.name}", "", f"    {_command(experiment, measured)}", ""]
    lines += [f"**{finding.verdict[0].upper()}{finding.verdict[1:]}**; {reason_of(finding.checks)}", ""]
    lines += [f"![{experiment.title}]({figure_name(experiment, finding)}.png)", ""]
    if experiment.surfaces:
        lines += [f"[The same as surfaces to turn]({surfaces_name(experiment, finding)}), one seed.", ""]
    if remarks := experiment.remarks(measured):
        lines += [*(f"- {remark}" for remark in remarks), ""]
    tables = [_conditions(finding.checks), _arms_table(experiment, measured), *experiment.tables(measured)]
    for table in tables:
        lines += [f"### {table.title}", "", table.markdown().rstrip("\n"), ""]
    lines += ["### Conditions of the measurement", "", *_conditions_of_measurement(experiment, measured), ""]
    return lines


def _command(experiment: Experiment, measured: Measured) -> str:
    """Return the command that measures the same, with the number of seeds that all arms have if the experiment asks for fewer in one."""
    budget = measured.budget
    planned = min(arm.seeds or budget.seeds for arm in measured.arms.values())
    common = min(len(by_seed) for by_seed in measured.records.values())
    seeds = f" seeds={common}" if common > planned else ""
    return f"python scripts/reproduce.py {experiment.name} budget={budget.name}{seeds}"


def _conditions(checks: Sequence[Check]) -> ResultTable:
    rows = [[check.statement, check.measured, check.bounds, check.outcome] for check in checks]
    return ResultTable("Conditions of the verdict", ["condition", "mean and 95 % interval", "bounds", "outcome"], rows)


def _arms_table(experiment: Experiment, measured: Measured) -> ResultTable:
    rows = []
    for key in measured.arms:
        last = measured.last_step(key)
        estimates = [quantity.text(measured.mean(key, quantity, last)) for quantity in experiment.quantities]
        steps = {int(record.results["trained_steps"]) for record in measured.records[key].values()}
        seeds = ", ".join(str(seed) for seed in measured.records[key])
        rows.append([measured.title(key), " ".join(f"{step:,}" for step in sorted(steps)), seeds, *estimates])
    header = ["arm", "steps", "seeds", *(quantity.name for quantity in experiment.quantities)]
    note = (
        "Means over the seeds with 95 % intervals, for magnitudes those of the logarithm. Statistics of features are those at the arm's "
        "last step, of the group where the magnitude is largest or the entropy smallest; PSNR is that of its best averaged weights."
    )
    notes = [note]
    if len({len(by_seed) for by_seed in measured.records.values()}) > 1:
        notes.append("Arms with more seeds than others share them with other claims.")
    return ResultTable("Arms", header, rows, notes)


def _conditions_of_measurement(experiment: Experiment, measured: Measured) -> list[str]:
    records = [record for seeds in measured.records.values() for record in seeds.values()]
    starts = [start for record in records for start in record.provenance]
    config = records[0].config
    devices = _listed(device for start in starts for device in start.get("devices", ()))
    packages = [f"{name} {_listed(start['packages'].get(name) or '-' for start in starts)}" for name in ("torch", "lightning", "numpy")]
    python, own = (_listed(start.get(key, "-") for start in starts) for key in ("python", "irformer"))
    sets = {name: part["images"] for record in records for name, part in record.results["test_sets"].items()}
    data = str(config["data.name"])
    validated = _listed(record.results.get("validation", {}).get("set", "-") for record in records)
    photos = " (photos bundled with scikit-image, because no other training set was found)" if data == "sample" else ""
    tested = _listed(f"{name} ({images} images)" for name, images in sets.items())
    return [
        f"- Budget: {measured.budget.title}. {experiment.setting}".rstrip(),
        f"- Training: {data}{photos}, batch {config['batch_size']}, patch {config['patch_size']}, learning rate {config['optim.lr']}, "
        "unless the arm says otherwise.",
        f"- PSNR: {tested}; compared on the set with the most images. Validation on {validated} chooses the best weights.",
        f"- Machine: {devices}.",
        f"- Versions: irformer {own}, Python {python}, {', '.join(packages)}.",
        "- Arms, as overrides of train.py after those of the budget:",
        *(f"    - {arm.title}: `{' '.join(arm.overrides)}`" for arm in measured.arms.values()),
    ]


def _listed(words: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(word) for word in words))


def _csv(experiment: Experiment, findings: Sequence[Finding]) -> str:
    """Return every measured number: one row per budget, arm, seed and quantity, and one per condition with its interval."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["budget", "arm", "seed", "step", "quantity", "value", "low", "high", "outcome"])
    for finding in findings:
        measured = finding.measured
        for key in measured.arms:
            last = measured.last_step(key)
            for quantity in experiment.quantities:
                for seed, value in measured.values(key, quantity, last).items():
                    writer.writerow([measured.budget.name, measured.title(key), seed, last, quantity.name, f"{value:.6g}", "", "", ""])
        for check in finding.checks:
            numbers = [f"{value:.6g}" for value in (check.estimate.mean, check.estimate.low, check.estimate.high)]
            writer.writerow([measured.budget.name, "", "", "", check.statement, *numbers, check.outcome])
    return out.getvalue()


@dataclass(frozen=True)
class State:
    """How far an experiment is at one budget.

    Args:
        finished: runs with a record.
        needed: runs of all arms.
        finding: the result, if all runs are finished.
    """

    finished: int
    needed: int
    finding: Finding | None

    @property
    def text(self) -> str:
        """The state in a few words."""
        return f"{self.finished} of {self.needed} runs" if self.finding is None else self.finding.verdict


def write_index(states: Mapping[str, Mapping[str, State]], experiments: Mapping[str, Experiment], out: Path) -> Path:
    """Write README.md, the table of all claims and verdicts.

    Args:
        states: the state of each experiment by name and budget.
        experiments: experiments by name.
        out: the folder of the pages.
    """
    budgets = [name for name in next(iter(states.values())) if any(by_budget[name].finished for by_budget in states.values())]
    rows, sentences = [], []
    for name, by_budget in states.items():
        link = f"[{name}]({name}.md)" if (out / f"{name}.md").is_file() else name
        rows.append([link, experiments[name].reference, experiments[name].in_short, *(by_budget[budget].text for budget in budgets)])
        findings = [by_budget[budget].finding for budget in budgets]
        sentences += [f"- {name}, budget {found.measured.budget.name}: {found.sentence}" for found in findings if found is not None]
    header = ["claim", PAPER, "what the paper claims", *(f"budget {name}" for name in budgets)]
    lines = [_GENERATED, "# Claims and verdicts", "", "    python scripts/reproduce.py list", ""]
    lines += [f"The claims of the i-LN paper ({PAPER}) that are tested here, and what came out. {RULE}", ""]
    lines += [ResultTable("", header, rows).markdown().rstrip("\n"), ""]
    if sentences:
        lines += ["## In one sentence each", "", *sentences, ""]
    lines.append(
        "The records of the runs are in data/, one folder per run. Pages are written from them in seconds, without training a run again; "
        "`seeds=N` adds seeds."
    )
    file = out / "README.md"
    text = "\n".join(lines) + "\n"
    write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return file
