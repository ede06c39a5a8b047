"""Claims of the i-LN paper, each by one command: the runs that it compares, what came out, and what that says.

Every arm is an ordinary run in the experiment's folder. What is finished there is never deleted or trained again. The numbers in the
closing remarks are computed from the runs' files, and so is what they say.
"""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from irformer.config.compose import compose, trust_of
from irformer.config.image_sets import find_test_sets
from irformer.config.tasks import build_task
from irformer.core.files import write_atomically
from irformer.data.test_sets import TestSet
from irformer.dynamics.figures import Dynamics, figure1, read_dynamics
from irformer.evaluation.evaluate import Metrics, evaluate
from irformer.evaluation.restorers import NetworkRestorer, Restorer, baseline
from irformer.evaluation.results import read_results, write_results
from irformer.models.interface import channels_of_groups
from irformer.reporting.page import ResultTable, crop_rows, format_metrics, write_page
from irformer.runs.sweep import finish_run, require_same_run
from irformer.training.provenance import PROVENANCE
from irformer.training.stopping import Stopped
from irformer.weights.checkpoints import BEST, load_checkpoint


@dataclass(frozen=True)
class PlannedArm:
    """One side of a comparison before it is trained: the folder of its run, how figures call it, and the overrides that make it."""

    name: str
    title: str
    overrides: tuple[str, ...]

    @property
    def line(self) -> str:
        """The title in one line, for tables."""
        return " ".join(self.title.split())


# As the official networks are built, and between them the control in which only the norm inside the blocks differs from i-LN.
FIGURE1_ARMS = (
    PlannedArm("ln", "LayerNorm\n(official baseline)", ("norm=ln",)),
    PlannedArm(
        "control",
        "LayerNorm in the blocks,\naffine ends, standardised input",
        ("norm=ln", "norm.ends=affine", "norm.standardize_input=true"),
    ),
    PlannedArm("iln", "i-LN\n(official)", ("norm=iln",)),
)


@dataclass(frozen=True)
class Outcome:
    """What the finished run of an arm came to, read from its folder; magnitude and entropy are the last group's at the last step."""

    arm: PlannedArm
    steps: int
    loss: float
    metrics: Metrics
    magnitude: float
    entropy: float
    dynamics: Dynamics


def reproduce_figure1(budget: str, out: Path, overrides: list[str], console: Console) -> None:
    """Train the arms of Figure 1 one after the other, and write figure1.png, dynamics.csv, results.json and report.html.

    The arms are ordinary runs in one folder. An arm that is finished there is taken as it is, and one that was interrupted is resumed.

    Args:
        budget: `cpu` (minutes), `gpu` (hours) or `paper`.
        out: the folder, with a folder for each arm's run.
        overrides: further ones for all arms, as on train.py's command line.
        console: where progress, table and remarks are printed.

    Raises:
        UserError: the folder of an arm holds a run of another configuration; nothing has been trained then.
    """
    words = {arm: [f"experiment=figure1_{budget}", f"name={arm.name}", *arm.overrides, *overrides] for arm in FIGURE1_ARMS}
    configs = {arm: compose("train", words[arm]) for arm in FIGURE1_ARMS}
    for arm, cfg in configs.items():
        require_same_run(cfg, out / arm.name, _ELSEWHERE)
    for number, (arm, cfg) in enumerate(configs.items(), start=1):
        console.print(Text(f"{number} of {len(configs)}: {' '.join(arm.overrides)}", "bold"))
        try:
            finish_run(cfg, out / arm.name, console, _ELSEWHERE, words[arm], quiet=True)
        except Stopped:
            console.print(Text(f"stopped in {out / arm.name}: the same command resumes it"), soft_wrap=True)
            raise
    _write_figure1(out, configs[FIGURE1_ARMS[0]], console)


_ELSEWHERE = "out=FOLDER starts the comparison in another folder"


def _outcome(arm: PlannedArm, folder: Path, test_set: str) -> Outcome:
    record = read_results(folder / "results.json")
    dynamics = read_dynamics(folder / "dynamics.csv")
    with (folder / "metrics.csv").open(newline="") as file:
        losses = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "train/loss"]
    tail = losses[-max(1, len(losses) // 10) :]
    return Outcome(
        arm,
        record["trained_steps"],
        sum(tail) / len(tail),
        record["test_sets"][test_set]["metrics"],
        float(dynamics["mean_square"][-1].values[-1]),
        float(dynamics["channel_entropy"][-1].values[-1]),
        dynamics,
    )


def _write_figure1(out: Path, cfg: DictConfig, console: Console) -> None:
    """Write the comparison from the arms' files alone.

    Args:
        out: folder of the arms' folders.
        cfg: configuration of an arm, of which only what all arms share is read.
        console: where table and remarks are printed.
    """
    task = build_task(cfg.task)
    test_set = find_test_sets(cfg.test_sets, Path(cfg.paths.data), task, cfg.data.max_megapixels)[0]
    outcomes = [_outcome(arm, out / arm.name, test_set.name) for arm in FIGURE1_ARMS]
    networks = {arm: load_checkpoint(out / arm.name / BEST, trust=trust_of(cfg)).network for arm in FIGURE1_ARMS}
    network = networks[FIGURE1_ARMS[0]]
    figure = out / "figure1.png"
    figure1({outcome.arm.title: outcome.dynamics for outcome in outcomes}, channels_of_groups(network), figure)
    _write_dynamics(out / "dynamics.csv", outcomes)
    untrained, restorer = baseline(task)
    untrained_metrics = evaluate(restorer, test_set).metrics
    table = _table(outcomes, untrained, untrained_metrics, test_set)
    remarks = figure1_remarks({outcome.arm.name: outcome.magnitude for outcome in outcomes})
    record = _record(outcomes, untrained, untrained_metrics, test_set, remarks)
    write_results(out / "results.json", record)
    restorers: dict[str, Restorer] = {untrained: restorer}
    restorers |= {arm.line: NetworkRestorer(arm_network, task.protocol.padding) for arm, arm_network in networks.items()}
    write_page(
        out / "report.html",
        title="LayerNorm against i-LN: Figure 1 of arXiv 2504.06629",
        facts={
            "task": task.label,
            "data": f"{cfg.data.name}; measured on {test_set.name}, {len(test_set)} images",
            "network": f"{cfg.model.name}, {sum(p.numel() for p in network.parameters()):,} parameters with {FIGURE1_ARMS[0].line}",
            "device": ", ".join(_devices(out)),
            "steps": f"{cfg.trainer.max_steps:,} of {cfg.batch_size} patches of {cfg.patch_size}x{cfg.patch_size} LQ",
        },
        tables=[table],
        remarks=remarks,
        figure=figure,
        crops=crop_rows(test_set, restorers),
    )
    table.show(console)
    for remark in remarks:
        console.print(Text(remark))
    for name in ("figure1.png", "report.html", "dynamics.csv", "results.json"):
        console.print(Text(f"wrote {out / name}"), soft_wrap=True)


def _devices(out: Path) -> list[str]:
    """The devices on which the arms were trained, from what each start has recorded."""
    starts = [start for arm in FIGURE1_ARMS for start in json.loads((out / arm.name / PROVENANCE).read_text(encoding="utf-8"))["starts"]]
    return list(dict.fromkeys(f"{len(start['devices'])} x {start['devices'][0]}" for start in starts))


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


def _table(outcomes: list[Outcome], untrained: str, metrics: Metrics, test_set: TestSet) -> ResultTable:
    rows = [[untrained, "-", "-", format_metrics(metrics), "-", "-"]]
    rows += [
        [
            outcome.arm.line,
            str(outcome.steps),
            f"{outcome.loss:.4f}",
            format_metrics(outcome.metrics),
            f"{outcome.magnitude:.3g}",
            f"{outcome.entropy:.2f}",
        ]
        for outcome in outcomes
    ]
    quality = f"{test_set.name}: {' / '.join(metrics)}"
    header = ["", "steps", "loss", quality, "last group's magnitude", "entropy (nats)"]
    notes = ["Loss: mean over the last tenth of what was logged. Magnitude: mean square of the features. Entropy: of the channels' shares."]
    return ResultTable("Figure 1: what the features of the last group come to", header, rows, notes)


def _record(outcomes: list[Outcome], untrained: str, metrics: Metrics, test_set: TestSet, remarks: list[str]) -> dict[str, Any]:
    return {
        "task": test_set.task.name,
        "protocol": test_set.task.protocol.as_dict(),
        "test_set": test_set.name,
        untrained: metrics,
        "arms": {
            outcome.arm.name: {
                "overrides": list(outcome.arm.overrides),
                "steps": outcome.steps,
                "loss": outcome.loss,
                "metrics": outcome.metrics,
                "magnitude": outcome.magnitude,
                "channel_entropy": outcome.entropy,
            }
            for outcome in outcomes
        },
        "remarks": remarks,
    }


def _write_dynamics(path: Path, outcomes: list[Outcome]) -> None:
    """The dynamics.csv of all arms in one file, with the arm in front."""

    def write(aside: Path) -> None:
        with aside.open("w", newline="") as file:
            writer = csv.writer(file)
            for i, outcome in enumerate(outcomes):
                with (path.parent / outcome.arm.name / "dynamics.csv").open(newline="") as part:
                    header, *rows = list(csv.reader(part))
                writer.writerows([["arm", *header]] if i == 0 else [])
                writer.writerows([outcome.arm.name, *row] for row in rows)

    write_atomically(path, write)
