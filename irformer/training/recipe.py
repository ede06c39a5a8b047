"""From the configuration to what a recipe is made of: sizes by stages, optimizer, mixup, and the weights that it starts from."""

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from irformer.config.compose import instantiate
from irformer.data.stages import Stages
from irformer.errors import UserError
from irformer.training.contracts import require_optimizer
from irformer.training.mixup import Mixup


def training_stages(cfg: DictConfig) -> Stages:
    """Patch and batch sizes through the run: those of `progressive`, or one size throughout.

    Raises:
        UserError: `progressive` cannot be used, or says another first stage than patch_size and batch_size.
    """
    if cfg.progressive is None:
        return Stages.constant(cfg.patch_size, cfg.batch_size)
    stages = Stages(**_arguments(cfg, "progressive", ("steps", "patch_size", "batch_size"), required=True))
    for name in ("patch_size", "batch_size"):
        sizes = getattr(stages, name)
        if cfg[name] != sizes[0]:
            raise UserError(
                f"{name}={cfg[name]} beside progressive.{name}={sizes}: the first stage's number stands in both; "
                "change the list too, or train with one size throughout by progressive=null"
            )
    return stages


def build_mixup(cfg: DictConfig) -> Mixup | None:
    """What blends the patches of a batch, or None.

    Raises:
        UserError: `mixup` has a key that does not exist, or a value that cannot be.
    """
    return None if cfg.mixup is None else Mixup(**_arguments(cfg, "mixup", ("beta", "identity"), required=False))


def build_optimizer(cfg: DictConfig, network: nn.Module) -> Callable[..., Optimizer]:
    """What makes the optimizer from parameters; it is tried on the network's, so that a refused argument is told before training.

    Raises:
        UserError: there is no such optimizer, or it refuses an argument.
    """
    build: Callable[..., Optimizer] = instantiate(cfg.optim.optimizer)
    try:
        tried = build(network.parameters())
    except (TypeError, ValueError) as error:
        raise UserError(
            f"optim.optimizer: {cfg.optim.optimizer._target_} says: {error}; what it does not take is removed by '~optim.optimizer.KEY', "
            "what it needs besides is given by +optim.optimizer.KEY=VALUE"
        ) from error
    require_optimizer(tried, str(cfg.optim.optimizer._target_))
    return build


def require_start(cfg: DictConfig) -> None:
    """See that a fine-tuning recipe (it has an `init_recipe`) is given the weights that it starts from.

    Raises:
        UserError: it is not; the recipe that makes them is named.
    """
    if cfg.init_recipe is not None and cfg.init_from is None and cfg.resume is None:
        raise UserError(
            f"init_from is missing: this recipe starts from the weights of experiment={cfg.init_recipe}; give init_from=PATH, the folder "
            "of such a run or a file of its official weights, or start from random weights by init_recipe=null"
        )


def _arguments(cfg: DictConfig, key: str, known: tuple[str, ...], required: bool) -> dict[str, Any]:
    """The values of a part of the configuration by name, after a look at the names."""
    found: Any = OmegaConf.to_container(cfg[key], resolve=True) if isinstance(cfg[key], DictConfig) else None
    if found is None or set(found) - set(known) or (required and set(known) - set(found)):
        example = ", ".join(f"{name}: ..." for name in known)
        raise UserError(f"{key}={cfg[key]}: expected {{{example}}}, or null")
    return found
