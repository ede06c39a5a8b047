"""The budgets of the laboratory: what an arm may cost, and the networks, data and steps that follow from it."""

from dataclasses import dataclass, field

from irformer.errors import UserError


@dataclass(frozen=True)
class Budget:
    """A budget of the laboratory; `configs/experiment/lab_NAME.yaml` holds the settings that all of its arms share.

    Args:
        name: the word after `budget=`.
        title: the budget in words.
        model: the network of most arms.
        backbones: the networks of the comparison of backbones.
        short: steps of an arm that is compared at its beginning only.
        long: steps of an arm that is followed further.
        seeds: seeds of an arm.
        data: training sets in the order of preference; the first is that of the configuration.
        step_seconds: seconds of a training step of `model` on the machine of `hardware`; only `list` uses it, because an estimate from a
            measured step comes before training.
        hardware: the machine that `step_seconds` refers to.
        jobs: arms that this machine trains at once.
    """

    name: str
    title: str
    model: str
    backbones: tuple[str, ...]
    short: int
    long: int
    seeds: int
    data: tuple[str, ...]
    step_seconds: float
    hardware: str
    jobs: int
    probes: int = field(default=60, kw_only=True)

    @property
    def experiment(self) -> str:
        """The configuration that all arms share."""
        return f"lab_{self.name}"


CPU = Budget(
    name="cpu",
    title="tiny networks on BSDS400, minutes per arm on one core",
    model="swinir_tiny",
    backbones=("swinir_tiny", "hat_tiny", "drct_tiny", "restormer_tiny"),
    short=1500,
    long=6000,
    seeds=3,
    data=("bsds400", "sample"),
    step_seconds=0.07,
    hardware="2 CPU cores",
    jobs=2,
)
GPU = Budget(
    name="gpu",
    title="HAT_1 of the paper for its first thousands of steps on one GPU",
    model="hat_mini",
    backbones=("swinir_light", "hat_mini", "drct"),
    short=1000,
    long=3000,
    seeds=1,
    data=("div2k", "bsds400", "sample"),
    step_seconds=0.05,
    hardware="one H100, four arms at once",
    jobs=4,
)
PAPER = Budget(
    name="paper",
    title="the published recipe: 300,000 steps on DF2K",
    model="hat_mini",
    backbones=("swinir", "hat_mini", "drct"),
    short=300_000,
    long=300_000,
    seeds=1,
    data=("df2k",),
    step_seconds=0.2,
    hardware="one H100",
    jobs=1,
)
BUDGETS = {budget.name: budget for budget in (CPU, GPU, PAPER)}


def find_budget(name: str) -> Budget:
    """Return a budget by its name.

    Raises:
        UserError: unknown name.
    """
    if name not in BUDGETS:
        raise UserError(f"budget={name}: expected {', '.join(BUDGETS)}")
    return BUDGETS[name]
