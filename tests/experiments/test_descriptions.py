"""Every description is complete: its arms compose at every budget, and arms that are equal are shared."""

import pytest
import torch

from irformer.config.compose import build_network
from irformer.experiments.budgets import BUDGETS, CPU, GPU, PAPER
from irformer.experiments.laboratory import EXPERIMENTS
from irformer.experiments.planning import plan_runs
from irformer.models.interface import channels_of_groups

NAMES = ["control", "figure1", "figure2", "figure4", "figure7", "figure8", "figure9", "figure10", "figure11", "figure14"]
NAMES += ["table1", "table2", "table3", "table4", "table8"]


def test_all_claims_are_described():
    assert sorted(EXPERIMENTS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", BUDGETS.values(), ids=list(BUDGETS))
def test_arms_compose_and_are_told_apart(name, budget):
    arms = list(EXPERIMENTS[name].arms(budget))
    assert len({arm.key for arm in arms}) == len({arm.title for arm in arms}) == len({arm.overrides for arm in arms}) == len(arms)
    runs = plan_runs(arms, budget, seeds=1)
    assert len({run.name for run in runs}) == len(arms)
    for run in runs:  # what is known without composing
        config = run.config
        assert run.steps == run.arm.steps(budget) == config.trainer.max_steps
        assert run.name.startswith(f"{config.task.name}-{config.model.name}-{config.norm.name}-s0")
    assert all(run.config.data.name == budget.data[0] and run.config.task.scale in (1, budget.scale) for run in runs)


@pytest.mark.parametrize("budget", [CPU, pytest.param(GPU, marks=pytest.mark.slow), pytest.param(PAPER, marks=pytest.mark.slow)])
def test_networks_of_all_sizes_can_be_built_and_probed(budget):
    arms = [arm for arm in EXPERIMENTS["figure2"].arms(budget) if arm.key.endswith("-iln")]
    for run in plan_runs(arms, budget, seeds=1):
        with torch.device("meta"):
            network = build_network(run.config.model)
        assert channels_of_groups(network), run.name


def test_claims_share_their_arms():
    def names(claim: str) -> set[str]:
        return {run.name for run in plan_runs(EXPERIMENTS[claim].arms(CPU), CPU)}

    assert names("figure1") <= names("control")
    assert names("figure7") == names("table3")
    assert names("table2") < names("figure2")
    assert names("figure4") == names("table1")
    assert names("figure8") == names("figure9") <= names("figure11")
    assert names("table4") == names("figure10") <= names("figure8") | names("figure2")


def test_the_control_runs_four_corners_for_6000_steps_and_twelve_for_1500_with_three_seeds():
    runs = plan_runs(EXPERIMENTS["control"].arms(CPU), CPU)
    steps = {arm.key: arm.steps(CPU) for arm in EXPERIMENTS["control"].arms(CPU)}
    corners = [key for key in steps if not key.startswith("twice")]
    assert len(corners) == 12
    assert min(steps.values()) == 1500
    assert all(steps[f"{blocks}-{ends}-standardized"] == 6000 for blocks in ("ln", "iln") for ends in ("ln", "affine"))
    assert {run.seed for run in runs} == {0, 1, 2}
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)  # every arm has a result early
