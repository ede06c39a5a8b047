"""The paper's claims about magnitude and entropy: figures 1, 2, 4, 7, 11 and 14, and table 8."""

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from irformer.experiments.budgets import Budget
from irformer.experiments.checks import Check
from irformer.experiments.control import corner
from irformer.experiments.description import Experiment
from irformer.experiments.lab_arms import OFFICIAL_ILN, OFFICIAL_LN, Arm, long, scheme
from irformer.experiments.measured import ENTROPY, LOG_MAGNITUDE, MAGNITUDE, QUALITY, Measured, Quantity
from irformer.experiments.norm_arms import NORMS, ComparedNorm, ends_normalize, norm_arms
from irformer.experiments.result_figures import dynamics_figure, interval_figure
from irformer.experiments.seed_statistics import contrast
from irformer.experiments.setting_arms import setting_arms, settings

_TENFOLD = "in log10 of the magnitude"
_LONGER = "More steps: the paper's networks diverge within tens to hundreds of thousands of steps."


def official_pair(budget: Budget, seeds: int | None = None) -> tuple[Arm, Arm]:
    """Return the official LayerNorm and the official i-LN network, followed further."""
    return (
        Arm("ln", "LayerNorm (official)", (*OFFICIAL_LN, *long(budget)), seeds),
        Arm("iln", "i-LN (official)", (*OFFICIAL_ILN, *long(budget)), seeds),
    )


def tenfold(measured: Measured, high: str, low: str, statement: str) -> Check:
    """Return the condition that one arm has more than ten times the magnitude of another; contradicted if it has less than the other."""
    return Check(statement, measured.difference(high, low, LOG_MAGNITUDE), 1.0, 0.0, _TENFOLD)


# Figure 1


def _figure1_arms(budget: Budget) -> Iterator[Arm]:
    yield from official_pair(budget)
    between = corner(budget, "ln", "affine", True)
    yield Arm("control", "LN blocks, i-LN's ends and input", between.overrides)


def _figure1_checks(measured: Measured) -> list[Check]:
    return [
        tenfold(measured, "ln", "iln", "The magnitude with LayerNorm is more than ten times that with i-LN"),
        Check("The channel entropy with i-LN is higher", measured.difference("iln", "ln", ENTROPY), 0.0, 0.0, "nats"),
    ]


def _figure1_remarks(measured: Measured) -> list[str]:
    between = measured.difference("control", "iln", LOG_MAGNITUDE)
    whole = measured.difference("ln", "iln", LOG_MAGNITUDE)
    share = f", {100 * between.mean / whole.mean:.0f} % of the difference of the official networks" if whole.low > 0 else ""
    return [
        f"The arm in between has LayerNorm in its blocks and everything else from i-LN. Its magnitude differs from i-LN's by "
        f"{between.text(sign=True)} in log10{share}; `control` separates the causes."
    ]


FIGURE1 = Experiment(
    name="figure1",
    reference="Figure 1",
    title="Figure 1: magnitude and entropy over depth and steps",
    claim=(
        "With LayerNorm, the mean square of the features of a HAT for x4 super-resolution explodes in the last groups, to about 4.5e7 "
        "after 310,000 iterations, while their channel entropy falls to about 0; with i-LN the magnitude "
        "stays near 1.2 and the entropy near 4.9 nats."
    ),
    in_short="LayerNorm's magnitude explodes to 4.5e7 and its entropy falls to 0; i-LN's stay near 1.2 and 4.9",
    arms=_figure1_arms,
    quantities=(MAGNITUDE, ENTROPY, QUALITY),
    checks=_figure1_checks,
    would_change=_LONGER,
    figure=dynamics_figure,
    setting="The official networks, which differ in the norm of the blocks, the ends and the input, and one arm in between.",
    remarks=_figure1_remarks,
    surfaces=True,
)

# Figure 2


def _figure2_checks(measured: Measured) -> list[Check]:
    return [
        tenfold(measured, f"{name}-ln", f"{name}-iln", f"{title}: the magnitude with LayerNorm is more than ten times that with i-LN")
        for name, title in settings(measured.budget).items()
    ]


def _figure2(measured: Measured) -> Figure:
    rows = {title: measured.difference(f"{name}-ln", f"{name}-iln", LOG_MAGNITUDE) for name, title in settings(measured.budget).items()}
    return interval_figure(rows, "log10 of LayerNorm's magnitude over i-LN's")


def _figure2_remarks(measured: Measured) -> list[str]:
    """Return what a final norm, which not every network has, explains."""
    names = settings(measured.budget)
    normalizing = [name for name in names if ends_normalize(measured.arms[f"{name}-ln"], measured.budget)]
    others = [name for name in names if name not in normalizing]
    if not normalizing or not others:
        return []
    ratios = {name: measured.difference(f"{name}-ln", f"{name}-iln", LOG_MAGNITUDE).mean for name in names}
    with_norm, without = ([ratios[name] for name in group] for group in (normalizing, others))
    return [
        f"With a final LayerNorm, which removes the scale of the features, the magnitude differs from that of i-LN by "
        f"{_from_to(with_norm)} in log10. Without a final norm ({', '.join(names[name] for name in others)}), it differs by "
        f"{_from_to(without)}. `control` changes the final norm alone."
    ]


def _from_to(values: Sequence[float]) -> str:
    ends = [f"{end:+.2f}" for end in (min(values), max(values))]
    return " to ".join(dict.fromkeys(ends))


FIGURE2 = Experiment(
    name="figure2",
    reference="Figure 2",
    title="Figure 2: divergence over depth, width, tasks and backbones",
    claim=(
        "The magnitude diverges with LayerNorm whatever the depth, the width, the task (super-resolution, denoising, deraining, JPEG "
        "artifacts) and the backbone, sooner and higher in bigger networks, and never with i-LN. The numbers behind the figure are not "
        "published."
    ),
    in_short="LayerNorm diverges at any depth and width, on any task and backbone; i-LN never does",
    arms=setting_arms,
    quantities=(MAGNITUDE, ENTROPY),
    checks=_figure2_checks,
    would_change=f"{_LONGER} Deraining is left out, because its training set is not at hand.",
    figure=_figure2,
    remarks=_figure2_remarks,
    setting=(
        "Pairs of official LayerNorm and official i-LN networks; one thing differs from pair to pair. The paper's backbones are SwinIR, "
        "HAT and DRCT."
    ),
)

# Figure 4


def _figure4_checks(measured: Measured) -> list[Check]:
    diverging = [norm for norm in NORMS if norm.diverges]
    bounded = [norm for norm in NORMS if not norm.diverges and norm.key != "iln"]
    checks = [tenfold(measured, norm.key, "iln", f"{norm.title} exceeds ten times i-LN's magnitude") for norm in diverging]
    for norm in bounded:
        margin = measured.difference("ln", norm.key, LOG_MAGNITUDE)
        checks.append(Check(f"{norm.title} stays below a tenth of LayerNorm's magnitude", margin, 1.0, 0.0, _TENFOLD))
    return checks


def _figure4(measured: Measured) -> Figure:
    rows = {norm.title: measured.mean(norm.key, LOG_MAGNITUDE) for norm in NORMS}
    return interval_figure(rows, "log10 of the magnitude at the end", "a magnitude of 1")


def _figure4_remarks(measured: Measured) -> list[str]:
    """Return what the norm at the ends, which also differs between the arms, explains."""
    normalizing = [norm for norm in NORMS if ends_normalize(measured.arms[norm.key], measured.budget)]
    others = [norm for norm in NORMS if norm not in normalizing]
    magnitudes = [f"{_range(measured, norms, MAGNITUDE)} ({', '.join(norm.title for norm in norms)})" for norms in (normalizing, others)]
    per_token, rest = ([norm for norm in NORMS if norm.diverges is diverges] for diverges in (True, False))
    return [
        f"Where the norm at the network's ends removes the scale of the features, the final magnitude is between {magnitudes[0]}; "
        f"elsewhere it is between {magnitudes[1]}. This figure changes the norms of the blocks and of the ends together; `control` "
        "separates them.",
        f"The final channel entropy is between {_range(measured, per_token, ENTROPY)} nats with per-token norms, and between "
        f"{_range(measured, rest, ENTROPY)} nats with the others.",
    ]


def _range(measured: Measured, norms: Sequence[ComparedNorm], quantity: Quantity) -> str:
    means = [measured.mean(norm.key, quantity).mean for norm in norms]
    return f"{min(means):.3g} and {max(means):.3g}"


FIGURE4 = Experiment(
    name="figure4",
    reference="Figure 4",
    title="Figure 4: which norms diverge",
    claim=(
        "LayerNorm, RMSNorm and LayerScale diverge. i-LN, BatchNorm, InstanceNorm and ReZero do not, and a network without a norm stays "
        "bounded: the paper takes this as evidence that the per-token operation is the cause."
    ),
    in_short="per-token norms (LN, RMS, LayerScale) diverge; i-LN, batch, instance, ReZero and none do not",
    arms=norm_arms,
    quantities=(MAGNITUDE, ENTROPY),
    checks=_figure4_checks,
    would_change=f"{_LONGER} The same ends for all norms: here, each norm has those that its configuration sets.",
    figure=_figure4,
    remarks=_figure4_remarks,
    setting="Each norm with its own ends and input, as its configuration says.",
)

# Figure 7

_HALVES = {
    "iln": "i-LN",
    "iln_norescale": "without the rescaling (LN*)",
    "ln_rescale": "without the statistics of the whole image",
    "ln": "without both (LayerNorm)",
}


def ablation_arms(budget: Budget) -> Iterator[Arm]:
    """Yield i-LN, i-LN without each of its halves, and LayerNorm, all with the ends and the input of i-LN, followed further."""
    for blocks, title in _HALVES.items():
        yield Arm(blocks, title, (*scheme(blocks, "affine", standardized=True), *long(budget)))  # type: ignore[arg-type]


def _figure7_checks(measured: Measured) -> list[Check]:
    return [
        Check(f"Channel entropy: i-LN exceeds i-LN {_HALVES[key]}", measured.difference("iln", key, ENTROPY), 0.0, 0.0, "nats")
        for key in ("iln_norescale", "ln_rescale")
    ]


def _figure7_remarks(measured: Measured) -> list[str]:
    """Return the effect of each half on the magnitude, which the paper's figure does not show, averaged over both states of the other."""
    iln, no_rescale, no_statistics, ln = (measured.values(key, LOG_MAGNITUDE) for key in _HALVES)
    rescale = contrast([(1, no_rescale), (-1, iln), (1, ln), (-1, no_statistics)])
    statistics = contrast([(1, no_statistics), (-1, iln), (1, ln), (-1, no_rescale)])
    factors = [f"{10**found.mean:.3g} ({found.text(sign=True)} in log10)" for found in (rescale, statistics)]
    return [
        f"Removing the rescaling multiplies the magnitude by {factors[0]}; replacing the statistics of the whole image by per-token "
        f"statistics multiplies it by {factors[1]}. Each effect is averaged over both states of the other half."
    ]


FIGURE7 = Experiment(
    name="figure7",
    reference="Figure 7",
    title="Figure 7: entropy without each half of i-LN",
    claim=(
        "i-LN has two halves: statistics of the whole image instead of those of a token, and the rescaling of the branch by the deviation. "
        "The figure removes each in turn and shows a lower channel entropy. Its numbers are not published."
    ),
    in_short="both halves of i-LN are needed to keep the channel entropy up",
    arms=ablation_arms,
    quantities=(ENTROPY, MAGNITUDE),
    checks=_figure7_checks,
    would_change=_LONGER,
    figure=dynamics_figure,
    remarks=_figure7_remarks,
    setting="Four corners: either half with and without the other. All have the ends and the input of i-LN, so only the blocks differ.",
)

# Figure 11


def _figure11_arms(budget: Budget) -> tuple[Arm, ...]:
    return official_pair(budget, seeds=budget.many_seeds)


def _figure11_checks(measured: Measured) -> list[Check]:
    ratio = measured.deviation_ratio("ln", "iln", LOG_MAGNITUDE)
    return [
        Check("The magnitude with LayerNorm varies more over seeds than that with i-LN", ratio, 1.0, 1.0, "times the deviation of log10")
    ]


FIGURE11 = Experiment(
    name="figure11",
    reference="Figure 11",
    title="Figure 11: several seeds",
    claim="Over several seeds, i-LN's magnitude is stable and LayerNorm's fluctuates. The numbers behind the figure are not published.",
    in_short="over seeds, LayerNorm's magnitude fluctuates and i-LN's does not",
    arms=_figure11_arms,
    quantities=(MAGNITUDE, LOG_MAGNITUDE, ENTROPY),
    checks=_figure11_checks,
    would_change="More seeds, because few give a wide interval of a ratio of deviations; and more steps.",
    figure=dynamics_figure,
    setting="The official networks. The interval of the ratio is that of the F distribution, which assumes normal values.",
)

# Figure 14

_BATCHES = (2, 4, 8)


def _figure14_arms(budget: Budget) -> Iterator[Arm]:
    for batch in _BATCHES:
        words = () if batch == budget.batch_size else (f"batch_size={batch}",)
        for key, name, official in (("ln", "LayerNorm", OFFICIAL_LN), ("iln", "i-LN", OFFICIAL_ILN)):
            yield Arm(f"{key}-{batch}", f"{name}, batch {batch}", (*official, *words), cost=batch / budget.batch_size)


def _figure14_checks(measured: Measured) -> list[Check]:
    return [
        tenfold(
            measured, f"ln-{batch}", f"iln-{batch}", f"Batch {batch}: the magnitude with LayerNorm is more than ten times that with i-LN"
        )
        for batch in _BATCHES
    ]


FIGURE14 = Experiment(
    name="figure14",
    reference="Figure 14",
    title="Figure 14: batches of 2, 4 and 8",
    claim="LayerNorm diverges and i-LN does not, with batches of 2, 4 and 8. The numbers behind the figure are not published.",
    in_short="LayerNorm diverges and i-LN does not at batch 2, 4 and 8",
    arms=_figure14_arms,
    quantities=(MAGNITUDE, ENTROPY),
    checks=_figure14_checks,
    would_change=_LONGER,
    figure=dynamics_figure,
    setting="The official networks at the learning rate of the budget for all batches.",
)

# Table 8

_CLIP = 0.1
_KL_WEIGHT = 1e-3


def _table8_arms(budget: Budget) -> Iterator[Arm]:
    yield Arm("ln", "LayerNorm (official)", OFFICIAL_LN)
    yield Arm("clipped", f"LayerNorm, gradient norm clipped to {_CLIP}", (*OFFICIAL_LN, f"trainer.gradient_clip_val={_CLIP}"))
    kl = ("loss=l1_feature_kl", f"loss.parts.feature_kl.weight={_KL_WEIGHT}")
    yield Arm("kl", "LayerNorm, KL regularization of features", (*OFFICIAL_LN, *kl))
    yield Arm("iln", "i-LN (official)", OFFICIAL_ILN)


def _table8_checks(measured: Measured) -> list[Check]:
    clipped = measured.difference("clipped", "iln", LOG_MAGNITUDE)
    return [
        tenfold(measured, "ln", "iln", "The magnitude with LayerNorm is more than ten times that with i-LN"),
        Check("Gradient clipping leaves the magnitude above ten times i-LN's", clipped, 1.0, 0.0, _TENFOLD),
        tenfold(measured, "ln", "kl", "The KL regularization lowers LayerNorm's magnitude more than tenfold"),
        Check("The KL regularization costs PSNR", measured.quality_difference("ln", "kl"), 0.0, 0.0, "dB", 3),
    ]


TABLE8 = Experiment(
    name="table8",
    reference="Table 8",
    title="Table 8: gradient clipping and KL regularization",
    claim=(
        "Gradient clipping does not stop the divergence: the largest magnitude is 5.6e6 with it and 5.8e6 without, against about 1.2 with "
        "i-LN. A KL regularization of the features stabilizes training, but costs much quality."
    ),
    in_short="clipping gradients does not stop the divergence; KL regularization does, at the cost of quality",
    arms=_table8_arms,
    quantities=(MAGNITUDE, ENTROPY, QUALITY),
    checks=_table8_checks,
    would_change=f"{_LONGER} The paper gives neither the clipping threshold nor the regularization's formula and weight.",
    figure=dynamics_figure,
    setting=(
        f"Gradients are clipped to a norm of {_CLIP}. The KL regularization is our reading: the divergence of each group's output, taken "
        f"as a normal distribution per image, from the standard normal distribution, with weight {_KL_WEIGHT:g}."
    ),
)

DYNAMICS_CLAIMS: Sequence[Experiment] = (FIGURE1, FIGURE2, FIGURE4, FIGURE7, FIGURE11, FIGURE14, TABLE8)
