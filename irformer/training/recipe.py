"""Building of a training recipe from the configuration: stages, optimizer, mixup and initial weights."""

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from irformer.config.compose import instantiate
from irformer.data.stages import Stages
from irformer.errors import UserError
from irformer.schema.phrases import show
from irformer.training.contracts import require_optimizer
from irformer.training.fused import fused_where_possible
from irformer.training.mixup import Mixup


def training_stages(cfg: DictConfig) -> Stages:
    """Build the stages of `progressive`, or a single stage with constant sizes.

    Raises:
        UserError: `progressive` is invalid, or its first stage differs from patch_size and batch_size.
    """
    if cfg.progressive is None:
        return Stages.constant(cfg.patch_size, cfg.batch_size)
    stages = Stages(**_arguments(cfg, "progressive", ("steps", "patch_size", "batch_size"), required=True))
    for name in ("patch_size", "batch_size"):
        sizes = getattr(stages, name)
        if cfg[name] != sizes[0]:
            raise UserError(
                f"{name}={cfg[name]} and progressive.{name}={sizes}: expected the size of the first stage in both; "
                "change the list as well, or train with constant sizes with progressive=null"
            )
    return stages


def build_mixup(cfg: DictConfig) -> Mixup | None:
    """Build the mixup of a batch's patches, or return None if it is not configured.

    Raises:
        UserError: `mixup` has an unknown key or an invalid value.
    """
    return None if cfg.mixup is None else Mixup(**_arguments(cfg, "mixup", ("beta", "identity"), required=False))


def build_optimizer(cfg: DictConfig, network: nn.Module, precision: str) -> Callable[..., Optimizer]:
    """Return a factory that builds the optimizer from parameters, after a trial on the network's parameters.

    Args:
        cfg: the configuration.
        network: the network.
        precision: Lightning's name of the precision.

    Raises:
        UserError: the optimizer does not exist, or it rejects an argument.
    """
    build: Callable[..., Optimizer] = instantiate(cfg.optim.optimizer)
    try:
        tried = build(network.parameters())
    except (TypeError, ValueError) as error:
        raise UserError(
            f"optim.optimizer: {cfg.optim.optimizer._target_} reports: {error}; remove an unsupported argument with "
            "'~optim.optimizer.KEY', add a missing one with +optim.optimizer.KEY=VALUE"
        ) from error
    require_optimizer(tried, str(cfg.optim.optimizer._target_))
    return fused_where_possible(build, type(tried), cfg, precision)


def require_start(cfg: DictConfig) -> None:
    """Check that a fine-tuning recipe (one with an `init_recipe`) has initial weights.

    Raises:
        UserError: the initial weights are missing.
    """
    if cfg.init_recipe is not None and cfg.init_from is None and cfg.resume is None:
        raise UserError(
            f"init_from is missing: this recipe starts from the weights of experiment={show(cfg.init_recipe)}; set init_from=PATH to the "
            "folder of such a run or to a file of its official weights, or start from random weights with init_recipe=null"
        )


def _arguments(cfg: DictConfig, key: str, known: tuple[str, ...], required: bool) -> dict[str, Any]:
    """Return the values of a section of the configuration by name, after checking the names."""
    found: Any = OmegaConf.to_container(cfg[key], resolve=True) if isinstance(cfg[key], DictConfig) else None
    if found is None or set(found) - set(known) or (required and set(known) - set(found)):
        example = ", ".join(f"{name}: ..." for name in known)
        raise UserError(f"{key}={cfg[key]}: expected {{{example}}}, or null")
    return found
