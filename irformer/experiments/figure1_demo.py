"""Figure 1 of the i-LN paper in minutes, as a page with pictures: the demo of the project. The laboratory measures the same with seeds.

Each arm is an ordinary run in the experiment's folder. Finished arms are never deleted or trained again. The closing remarks are computed
from the runs' files.
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
from irformer.evaluation.restorers import NetworkRestorer, baseline
from irformer.evaluation.results import read_results, write_results
from irformer.models.interface import channels_of_groups
from irformer.reporting.curves import run_charts
from irformer.reporting.gallery import gallery, restored_by
from irformer.reporting.page import format_metrics, write_page
from irformer.reporting.tables import ResultTable
from irformer.runs.sweep import finish_run, require_same_run
from irformer.training.provenance import PROVENANCE
from irformer.training.stopping import Stopped
from irformer.weights.checkpoints import BEST, load_checkpoint


@dataclass(frozen=True)
class PlannedArm:
    """An arm of a comparison before training: the name of its folder, its title in figures, and its overrides."""

    name: str
    title: str
    overrides: tuple[str, ...]

    @property
    def line(self) -> str:
        """The title on one line, for tables."""
        return " ".join(self.title.split())


# The two official networks, and between them a control that differs from i-LN only in the norm inside the blocks.
FIGURE1_ARMS = (
    PlannedArm("ln", "LayerNorm\n(official baseline)", ("norm=ln",)),
    PlannedArm(
        "control",
        "LayerNorm in the blocks,\naffine ends, standardized input",
        ("norm=ln", "norm.ends=affine", "norm.standardize_input=true"),
    ),
    PlannedArm("iln", "i-LN\n(official)", ("norm=iln",)),
)


@dataclass(frozen=True)
class Outcome:
    """The results of an arm's finished run; magnitude and entropy are those of the last group at the last step."""

    arm: PlannedArm
    steps: int
    loss: float
    metrics: Metrics
    magnitude: float
    entropy: float
    dynamics: Dynamics


def reproduce_figure1(out: Path, overrides: list[str], console: Console) -> None:
    """Train the arms of Figure 1 one after another, and write figure1.png, dynamics.csv, results.json and report.html.

    The arms are ordinary runs in subfolders. Finished arms are reused, and interrupted ones are resumed.

    Args:
        out: the output folder; each arm's run is in a subfolder.
        overrides: overrides of train.py for all arms.
        console: where progress, table and remarks are printed.

    Raises:
        UserError: the folder of an arm contains a run with another configuration; raised before any training.
    """
    arm_overrides = {arm: ["experiment=figure1_demo", f"name={arm.name}", *arm.overrides, *overrides] for arm in FIGURE1_ARMS}
    configs = {arm: compose("train", arm_overrides[arm]) for arm in FIGURE1_ARMS}
    for arm, cfg in configs.items():
        require_same_run(cfg, out / arm.name, _REMEDY)
    for number, (arm, cfg) in enumerate(configs.items(), start=1):
        console.print(Text(f"{number} of {len(configs)}: {' '.join(arm.overrides)}", "bold"))
        try:
            finish_run(cfg, out / arm.name, console, _REMEDY, arm_overrides[arm], quiet=True)
        except Stopped:
            console.print(Text(f"stopped in {out / arm.name}; run the same command again to resume"), soft_wrap=True)
            raise
    _write_figure1(out, configs[FIGURE1_ARMS[0]], console)


_REMEDY = "out=FOLDER starts the comparison in another folder"


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
    """Write the comparison from the files of the arms.

    Args:
        out: the output folder.
        cfg: the configuration of any arm; only keys that all arms share are read.
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
    restorers = {arm.line: NetworkRestorer(arm_network, task.protocol.padding) for arm, arm_network in networks.items()}
    write_page(
        out / "report.html",
        title="LayerNorm against i-LN: Figure 1 of arXiv 2504.06629",
        summary={
            "task": task.label,
            "data": f"{cfg.data.name}; measured on {test_set.name}, {len(test_set)} images",
            "network": f"{cfg.model.name}, {sum(p.numel() for p in network.parameters()):,} parameters with {FIGURE1_ARMS[0].line}",
            "device": ", ".join(_devices(out)),
            "steps": f"{cfg.trainer.max_steps:,} of {cfg.batch_size} patches of {cfg.patch_size}x{cfg.patch_size} LQ",
        },
        tables=[table],
        remarks=remarks,
        figure=figure,
        images=gallery([test_set], {name: restored_by(each) for name, each in restorers.items()}, {}, most=4),
        plots=run_charts({arm.line: out / arm.name for arm in FIGURE1_ARMS}, channels_of_groups(network)),
    )
    table.show(console)
    for remark in remarks:
        console.print(Text(remark))
    for name in ("figure1.png", "report.html", "dynamics.csv", "results.json"):
        console.print(Text(f"wrote {out / name}"), soft_wrap=True)


def _devices(out: Path) -> list[str]:
    """Return the devices on which the arms were trained, as recorded at each start."""
    starts = [start for arm in FIGURE1_ARMS for start in json.loads((out / arm.name / PROVENANCE).read_text(encoding="utf-8"))["starts"]]
    return list(dict.fromkeys(f"{len(start['devices'])} x {start['devices'][0]}" for start in starts))


def figure1_remarks(magnitude: dict[str, float]) -> list[str]:
    """Interpret the final magnitudes of the last group's output in the arms `ln`, `control` and `iln`, in two remarks."""
    ln, control, iln = (magnitude[name] for name in ("ln", "control", "iln"))
    values = f"{ln:.3g} with official LayerNorm and {iln:.3g} with official i-LN"
    first = f"At the end of training, the mean square of the last group's features is {values}, a ratio of {ln / iln:,.0f}."
    if not ln > 10 * iln:
        return [first, "At this budget LayerNorm has not diverged, so the control has nothing to explain."]
    # Position of the control between i-LN (0) and LayerNorm (1) on a logarithmic scale, as in the figure.
    position = math.log(control / iln) / math.log(ln / iln)
    if position < 0.25:
        conclusion = "the divergence comes from LayerNorm at the network's ends and its input, not from the norm inside the blocks"
    elif position > 0.75:
        conclusion = "the divergence comes from the norm inside the blocks"
    else:
        conclusion = "both the norm inside the blocks and the network's ends contribute to the divergence"
    return [
        first,
        f"The control (LayerNorm in the blocks, but i-LN's ends and input) reaches {control:.3g}: {control / iln:.3g} times i-LN, "
        f"{control / ln:.2g} times LayerNorm. At this budget, {conclusion}.",
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
    notes = ["Loss: mean over the last tenth of the log. Magnitude: mean square of the features. Entropy: entropy of the channels' shares."]
    return ResultTable("Figure 1: features of the last group at the end of training", header, rows, notes)


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
    """Concatenate the dynamics.csv of all arms, with the arm in the first column."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            for i, outcome in enumerate(outcomes):
                with (path.parent / outcome.arm.name / "dynamics.csv").open(newline="") as part:
                    header, *rows = list(csv.reader(part))
                writer.writerows([["arm", *header]] if i == 0 else [])
                writer.writerows([outcome.arm.name, *row] for row in rows)

    write_atomically(path, write)
