"""Claims of the i-LN paper, each by one command: the runs that it compares, what came out, and what that says.

Every arm is an ordinary run. The numbers in the closing remarks are computed from the runs, and so is what they say.
"""

import csv
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from irformer.config.compose import compose
from irformer.core.files import write_atomically
from irformer.data.test_sets import TestSet
from irformer.dynamics.figures import Dynamics, figure1, read_dynamics
from irformer.evaluation.evaluate import Metrics, evaluate
from irformer.evaluation.restorers import NetworkRestorer, Restorer, baseline
from irformer.evaluation.results import read_results, write_results
from irformer.reporting.page import ResultTable, crop_rows, format_metrics, write_page
from irformer.training.build import build_run
from irformer.training.run import Run, feature_channels
from irformer.weights.checkpoints import BEST, load_checkpoint


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: the folder of its run, how figures call it, and the overrides that make it."""

    name: str
    title: str
    overrides: tuple[str, ...]


# As the official networks are built, and between them the control in which only the norm inside the blocks differs from i-LN.
FIGURE1_ARMS = (
    Arm("ln", "LayerNorm\n(official baseline)", ("norm=ln",)),
    Arm(
        "control",
        "LayerNorm in the blocks,\naffine ends, standardised input",
        ("norm=ln", "norm.ends=affine", "norm.standardize_input=true"),
    ),
    Arm("iln", "i-LN\n(official)", ("norm=iln",)),
)


@dataclass(frozen=True)
class ArmResult:
    """What a run of a comparison came to; magnitude and entropy are the last group's at the last step."""

    arm: Arm
    steps: int
    loss: float
    metrics: Metrics
    magnitude: float
    entropy: float
    dynamics: Dynamics


def reproduce_figure1(budget: str, out: Path, overrides: list[str], console: Console) -> None:
    """Train the arms of Figure 1 one after the other, and write figure1.png, dynamics.csv, results.json and report.html.

    Args:
        budget: `cpu` (minutes), `gpu` (hours) or `paper`.
        out: the folder, with a folder for each arm's run.
        overrides: further ones for all arms, as on train.py's command line.
        console: where progress, table and remarks are printed.
    """
    results = []
    for number, arm in enumerate(FIGURE1_ARMS, start=1):
        console.print(Text(f"{number} of {len(FIGURE1_ARMS)}: {' '.join(arm.overrides)}", "bold"))
        folder = out / arm.name
        shutil.rmtree(folder, ignore_errors=True)
        cfg = compose("train", [f"experiment=figure1_{budget}", f"name={arm.name}", *arm.overrides, *overrides])
        run = build_run(cfg, folder)
        run.execute(Console(quiet=True))
        results.append(_result(arm, run))
    _write_figure1(out, results, run, console)


def _result(arm: Arm, run: Run) -> ArmResult:
    record = read_results(run.folder / "results.json")
    dynamics = read_dynamics(run.folder / "dynamics.csv")
    steps = run.trainer.max_steps
    with (run.folder / "metrics.csv").open(newline="") as file:
        losses = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "train/loss"]
    tail = losses[-max(1, len(losses) // 10) :]
    first_set = run.test_sets[0].name
    return ArmResult(
        arm,
        steps,
        sum(tail) / len(tail),
        record["test_sets"][first_set]["metrics"],
        float(dynamics["mean_square"][-1].values[-1]),
        float(dynamics["channel_entropy"][-1].values[-1]),
        dynamics,
    )


def _write_figure1(out: Path, results: list[ArmResult], run: Run, console: Console) -> None:
    test_set = run.test_sets[0]
    figure = out / "figure1.png"
    figure1({result.arm.title: result.dynamics for result in results}, feature_channels(run.module.network), figure)
    _write_dynamics(out / "dynamics.csv", results)
    untrained, restorer = baseline(run.task)
    untrained_metrics = evaluate(restorer, test_set).metrics
    table = _table(results, untrained, untrained_metrics, test_set)
    remarks = figure1_remarks({result.arm.name: result.magnitude for result in results})
    record = _record(results, untrained, untrained_metrics, test_set, remarks)
    write_results(out / "results.json", record)
    write_page(
        out / "report.html",
        title="LayerNorm against i-LN: Figure 1 of arXiv 2504.06629",
        facts={key: run.facts[key] for key in ("task", "data", "network", "device", "steps")},
        tables=[table],
        remarks=remarks,
        figure=figure,
        crops=crop_rows(test_set, _restorers(out, run)),
    )
    table.show(console)
    for remark in remarks:
        console.print(Text(remark))
    for name in ("figure1.png", "report.html", "dynamics.csv", "results.json"):
        console.print(Text(f"wrote {out / name}"), soft_wrap=True)


def figure1_remarks(magnitude: dict[str, float]) -> list[str]:
    """What the magnitudes of the last group's output at the end of the arms `ln`, `control` and `iln` say, in two sentences."""
    ln, control, iln = (magnitude[name] for name in ("ln", "control", "iln"))
    ratio = f"{ln:.3g} and {iln:.3g}, a ratio of {ln / iln:,.0f}"
    first = f"At the end the last group's features have a mean square of {ratio}, in official LayerNorm and official i-LN."
    if not ln > 10 * iln:
        return [first, "At this budget LayerNorm has not diverged, so that the control has nothing to explain."]
    # Where the control lies between i-LN (0) and LayerNorm (1) on the logarithmic scale that the figure has.
    place = math.log(control / iln) / math.log(ln / iln)
    if place < 0.25:
        said = "the divergence comes from LayerNorm at the network's ends and its input, not from the norm inside the blocks"
    elif place > 0.75:
        said = "the divergence comes from the norm inside the blocks"
    else:
        said = "both the norm inside the blocks and the network's ends have a share in the divergence"
    return [
        first,
        f"The control, LayerNorm in the blocks but i-LN's ends and input, comes to {control:.3g}: {control / iln:.3g} times i-LN, "
        f"{control / ln:.2g} times LayerNorm. So at this budget {said}.",
    ]


def _table(results: list[ArmResult], untrained: str, metrics: Metrics, test_set: TestSet) -> ResultTable:
    rows = [[untrained, "-", "-", format_metrics(metrics), "-", "-"]]
    rows += [
        [
            " ".join(result.arm.title.split()),
            str(result.steps),
            f"{result.loss:.4f}",
            format_metrics(result.metrics),
            f"{result.magnitude:.3g}",
            f"{result.entropy:.2f}",
        ]
        for result in results
    ]
    quality = f"{test_set.name}: {' / '.join(metrics)}"
    header = ["", "steps", "loss", quality, "last group's magnitude", "entropy (nats)"]
    notes = ["Loss: mean over the last tenth of what was logged. Magnitude: mean square of the features. Entropy: of the channels' shares."]
    return ResultTable("Figure 1: what the features of the last group come to", header, rows, notes)


def _record(results: list[ArmResult], untrained: str, metrics: Metrics, test_set: TestSet, remarks: list[str]) -> dict[str, Any]:
    return {
        "task": test_set.task.name,
        "protocol": test_set.task.protocol.as_dict(),
        "test_set": test_set.name,
        untrained: metrics,
        "arms": {
            result.arm.name: {
                "overrides": list(result.arm.overrides),
                "steps": result.steps,
                "loss": result.loss,
                "metrics": result.metrics,
                "magnitude": result.magnitude,
                "channel_entropy": result.entropy,
            }
            for result in results
        },
        "remarks": remarks,
    }


def _write_dynamics(path: Path, results: list[ArmResult]) -> None:
    """The dynamics.csv of all arms in one file, with the arm in front."""

    def write(aside: Path) -> None:
        with aside.open("w", newline="") as file:
            writer = csv.writer(file)
            for i, result in enumerate(results):
                with (path.parent / result.arm.name / "dynamics.csv").open(newline="") as part:
                    header, *rows = list(csv.reader(part))
                writer.writerows([["arm", *header]] if i == 0 else [])
                writer.writerows([result.arm.name, *row] for row in rows)

    write_atomically(path, write)


def _restorers(out: Path, run: Run) -> dict[str, Restorer]:
    restorers: dict[str, Restorer] = dict([baseline(run.task)])
    for arm in FIGURE1_ARMS:
        network = load_checkpoint(out / arm.name / BEST).network
        restorers[" ".join(arm.title.split())] = NetworkRestorer(network, run.task.protocol.padding)
    return restorers
