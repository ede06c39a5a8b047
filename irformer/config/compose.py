"""From configuration files and overrides to objects: where Hydra is used, besides the commands."""

import os
from collections.abc import Mapping
from typing import Any

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

import irformer.config.resolvers  # noqa: F401 (registers them)
from irformer.core.folders import CONFIGS
from irformer.core.processes import start_time
from irformer.core.trust import Trust, targets
from irformer.core.words import nearest
from irformer.errors import UserError
from irformer.schema.check import check_node

# Like Hydra's `now`, but the same on all processes of a run. Cached with a configuration, so that a name stays what it was.
OmegaConf.register_new_resolver("irformer.now", lambda pattern: start_time().strftime(pattern), use_cache=True, replace=True)


def compose(name: str, overrides: list[str]) -> DictConfig:
    """Compose a configuration from Python, as the command line does.

    Args:
        name: `train` or `benchmark`.
        overrides: as on the command line, e.g. ["norm=iln", "optim.lr=1e-4"].
    """
    outer = GlobalHydra.instance().hydra  # of the command that this is called from: Hydra knows no second one at a time
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return hydra.compose(name, overrides)
    finally:
        GlobalHydra.instance().hydra = outer


def options(group: str) -> list[str]:
    """The names that a config group offers."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def require_option(group: str, name: str) -> None:
    """Raise a UserError that names the known ones where a config group does not offer a name."""
    known = options(group)
    if name not in known:
        raise UserError(f"{group}={name}: unknown {group}; known: {', '.join(known)}{nearest(name, known)}")


def norm_config(name: str) -> dict[str, Any]:
    """The `norm` part of a configuration, plain values.

    Raises:
        UserError: there is no such norm.
    """
    require_option("norm", name)
    node: Any = OmegaConf.to_container(compose("train", [f"norm={name}"]).norm, resolve=True)
    return node


def model_config(name: str, norm: str, scale: int | None, in_channels: int) -> dict[str, Any]:
    """The `model` part of a configuration, plain values, norm included.

    Args:
        name: of the model.
        norm: its name.
        scale: upscaling factor, or None for the default of the network's class.
        in_channels: image channels.

    Raises:
        UserError: there is no such model or norm.
    """
    require_option("model", name)
    require_option("norm", norm)
    task = [f"task.scale={scale or 1}", f"task.channels={in_channels}"]
    node: Any = OmegaConf.to_container(compose("train", [f"model={name}", f"norm={norm}", *task]).model, resolve=True)
    return node if scale is not None else {key: value for key, value in node.items() if key != "scale"}


def with_named_norms(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Changes to the `model` part of a configuration in which the name of a norm, `{"norm": "iln"}`, is replaced by its configuration.

    Raises:
        UserError: there is no such norm.
    """
    return {key: norm_config(value) if key == "norm" and isinstance(value, str) else value for key, value in overrides.items()}


def trust_of(cfg: DictConfig) -> Trust:
    """Which classes files may name, by the keys `trust` and `model` of a configuration that the user has composed.

    Raises:
        UserError: `trust` is no list of packages.
    """
    packages: Any = _plain(cfg.get("trust")) or ()
    return Trust(packages, [str(target) for target in targets(_plain(cfg.get("model")))])


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def instantiate(node: DictConfig | dict[str, Any], **arguments: Any) -> Any:
    """Build what a config node names by `_target_`, with further arguments.

    Raises:
        UserError: the class does not exist, or refuses an argument.
    """
    try:
        return hydra.utils.instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise UserError(f"{node.get('name') or node.get('_target_')}: {_first_line(cause)}") from error


def build_network(model: DictConfig | dict[str, Any]) -> nn.Module:
    """Build a network from the `model` part of a configuration, its norm within it."""
    config: Any = OmegaConf.to_container(model, resolve=True) if isinstance(model, DictConfig) else dict(model)
    node = {key: value for key, value in config.items() if key != "name"}
    check_node("model", node)
    _require_memory(node)
    return instantiate(node)


def _require_memory(node: dict[str, Any]) -> None:
    """Refuse a network that cannot fit into this machine's memory, before the attempt takes all of it.

    Raises:
        UserError: its parameters and buffers alone are larger than the memory.
    """
    if not hasattr(os, "sysconf"):  # Windows refuses such an allocation itself
        return
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            network = hydra.utils.instantiate(node, _convert_="all")
        needed = sum(value.nbytes for value in [*network.parameters(), *network.buffers()])
    except Exception:  # a network that cannot be built on the meta device; building it reports whatever is wrong
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise UserError(
            f"model: its parameters and buffers take {needed / 2**30:,.1f} GiB, and this machine has {memory / 2**30:,.1f} GiB: "
            "choose a smaller network"
        )


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
