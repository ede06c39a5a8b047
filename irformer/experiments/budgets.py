"""The budgets of the laboratory: what an arm may cost, and the networks, data and steps that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass

from irformer.errors import UserError

Words = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Budget:
    """A budget of the laboratory; `configs/experiment/lab_NAME.yaml` holds the settings that all of its arms share.

    Args:
        name: the word after `budget=`.
        title: the budget in words.
        model: the network of most arms.
        scale: the upscaling factor of most arms.
        batch_size: the batch size of most arms.
        backbones: overrides and relative cost of the networks that are compared with `model`, by name.
        twice_lr: twice the learning rate.
        twice_depth: overrides of a network of twice the depth.
        twice_width: overrides of a network of twice the width.
        restoration: further overrides of arms for tasks of scale 1.
        short: steps of an arm that is compared at its beginning only.
        long: steps of an arm that is followed further.
        setting: steps of the arms over depth, width, tasks and backbones, which are many.
        probes: number of probes of a long arm.
        seeds: seeds of an arm.
        setting_seeds: seeds of the arms over depth, width, tasks and backbones.
        many_seeds: seeds where the seeds are the question.
        data: training sets in the order of preference; the first is that of the configuration.
        step_seconds: seconds of a training step of `model` on the machine of `hardware`, for `reproduce.py list`; before training, the
            estimate comes from a measured step.
        hardware: the machine that `step_seconds` refers to.
        jobs: arms that this machine trains at once.
    """

    name: str
    title: str
    model: str
    scale: int
    batch_size: int
    backbones: Mapping[str, tuple[Words, float]]
    twice_lr: str
    twice_depth: Words
    twice_width: Words
    restoration: Words
    short: int
    long: int
    setting: int
    probes: int
    seeds: int
    setting_seeds: int
    many_seeds: int
    data: Words
    step_seconds: float
    hardware: str
    jobs: int

    @property
    def experiment(self) -> str:
        """The configuration that all arms share."""
        return f"lab_{self.name}"


_DEEP_HAT = ("model.depths=[6,6,6,6,6,6,6,6,6,6,6,6]", "model.num_heads=[6,6,6,6,6,6,6,6,6,6,6,6]")

CPU = Budget(
    name="cpu",
    title="tiny networks on BSDS400, minutes per arm on one core",
    model="swinir_tiny",
    scale=2,
    batch_size=2,
    backbones={"hat_tiny": ((), 2.0), "drct_tiny": ((), 2.2), "restormer_tiny": ((), 1.2)},
    twice_lr="2e-3",
    twice_depth=("model.depths=[4,4,4,4]",),
    twice_width=("model.embed_dim=96",),
    restoration=("test_sets=[Set5]",),
    short=1500,
    long=6000,
    setting=1200,
    probes=60,
    seeds=3,
    setting_seeds=2,
    many_seeds=5,
    data=("bsds400", "sample"),
    step_seconds=0.09,
    hardware="2 CPU cores",
    jobs=2,
)
GPU = Budget(
    name="gpu",
    title="HAT_1 of the paper, its first 1,500 steps",
    model="hat_mini",
    scale=2,
    batch_size=4,
    backbones={"swinir_light": ((), 0.5), "drct": (("model.embed_dim=96",), 1.0)},
    twice_lr="1e-3",
    twice_depth=_DEEP_HAT,
    twice_width=("model.embed_dim=192",),
    restoration=("test_sets=[Set5]",),
    short=600,
    long=1500,
    setting=600,
    probes=60,
    seeds=3,
    setting_seeds=2,
    many_seeds=5,
    data=("bsds400", "sample"),
    step_seconds=0.1,
    hardware="one H100",
    jobs=6,
)
PAPER = Budget(
    name="paper",
    title="the published recipe: 300,000 steps on DF2K",
    model="hat_mini",
    scale=4,
    batch_size=16,
    backbones={"swinir": ((), 1.0), "drct": ((), 2.0)},
    twice_lr="4e-4",
    twice_depth=_DEEP_HAT,
    twice_width=("model.embed_dim=192",),
    restoration=("test_sets=[CBSD68,Urban100]",),
    short=300_000,
    long=300_000,
    setting=300_000,
    probes=60,
    seeds=1,
    setting_seeds=1,
    many_seeds=5,
    data=("df2k",),
    step_seconds=0.25,
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
