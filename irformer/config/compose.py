"""Composes configurations and instantiates objects. Only this module and the commands use Hydra.

Importing it loads no torch, so that a misspelled key is reported at once.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import InstantiationException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

import irformer.config.resolvers  # noqa: F401 (registers them)
from irformer.core.folders import CONFIGS, config_packages, require_new_names
from irformer.core.processes import start_time
from irformer.core.trust import Trust, foreign_packages, foreign_targets
from irformer.core.words import nearest
from irformer.errors import UserError, naming
from irformer.schema.check import check_node
from irformer.schema.roles import network_arguments

if TYPE_CHECKING:
    from torch import nn

# Like Hydra's `now`, but the same on all processes of a run. Cached with a configuration, so that names do not change.
OmegaConf.register_new_resolver("irformer.now", lambda pattern: start_time().strftime(pattern), use_cache=True, replace=True)


# The folder of --config-dir in the running command.
_config_dir: ContextVar[Path | None] = ContextVar("config_dir", default=None)


class _ExtraFolders(SearchPathPlugin):
    """Adds the folders of installed packages to Hydra's search path, after irformer's own; other Hydra applications are not affected."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if any(entry.provider == "main" and Path(entry.path.removeprefix("file://")) == CONFIGS for entry in search_path.get_path()):
            for folder in _extra_folders():
                search_path.append(provider="irformer", path=f"file://{folder}")


Plugins.instance().register(_ExtraFolders)


def _extra_folders() -> list[Path]:
    """Return the folders that are searched after irformer's own: those of installed packages, then `--config-dir`."""
    config_dir = _config_dir.get()
    folders = [package.folder for package in config_packages()] + ([] if config_dir is None else [config_dir])
    require_new_names(folders)
    return folders


@contextmanager
def searching(config_dir: Path | None) -> Iterator[None]:
    """Make `compose` and `options` search another folder within a block, as Hydra does with `--config-dir`.

    Raises:
        UserError: the folder contains a name that irformer or an installed package already uses.
    """
    before = _config_dir.set(config_dir)
    try:
        _extra_folders()
        yield
    finally:
        _config_dir.reset(before)


def config_dir_arguments() -> list[str]:
    """Return the `--config-dir` arguments of the running command, for another command line."""
    config_dir = _config_dir.get()
    return [] if config_dir is None else ["--config-dir", str(config_dir)]


def compose(name: str, overrides: list[str], config_dir: Path | None = None) -> DictConfig:
    """Compose a configuration in Python, as the command line does.

    Args:
        name: `train` or `benchmark`.
        overrides: overrides as on the command line, e.g. ["norm=iln", "optim.lr=1e-4"].
        config_dir: folder with additional config groups, like `--config-dir`; None means the one of the running command, if any.

    Raises:
        UserError: the folder contains a name that irformer or an installed package already uses.
    """
    outer = GlobalHydra.instance().hydra  # of the running command: Hydra allows only one at a time
    GlobalHydra.instance().clear()
    try:
        with (
            searching(_config_dir.get() if config_dir is None else config_dir.absolute()),
            hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"),
        ):
            return hydra.compose(name, overrides)
    finally:
        GlobalHydra.instance().hydra = outer


def options(group: str) -> list[str]:
    """Return the names in a config group, including those of installed packages and of `--config-dir`."""
    return sorted({path.stem for folder in (CONFIGS, *_extra_folders()) for path in (folder / group).glob("*.yaml")})


def require_option(group: str, name: str) -> None:
    """Check that a config group has a name.

    Raises:
        UserError: unknown name; the message lists the known ones.
    """
    known = options(group)
    if name not in known:
        raise UserError(f"{group}={name}: unknown {group}; known: {', '.join(known)}{nearest(name, known)}")


def norm_config(name: str) -> dict[str, Any]:
    """Return the `norm` section of a configuration as plain values.

    Raises:
        UserError: unknown norm.
    """
    require_option("norm", name)
    node: Any = OmegaConf.to_container(compose("train", [f"norm={name}"]).norm, resolve=True)
    return node


def model_config(name: str, norm: str, scale: int | None, in_channels: int) -> dict[str, Any]:
    """Return the `model` section of a configuration as plain values, including its norm.

    Args:
        name: name of the model.
        norm: name of the norm.
        scale: upscaling factor, or None for the default of the network's class.
        in_channels: image channels.

    Raises:
        UserError: unknown model or norm.
    """
    require_option("model", name)
    require_option("norm", norm)
    task = [f"task.scale={scale or 1}", f"task.channels={in_channels}"]
    node: Any = OmegaConf.to_container(compose("train", [f"model={name}", f"norm={norm}", *task]).model, resolve=True)
    return node if scale is not None else {key: value for key, value in node.items() if key != "scale"}


def with_named_norms(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the name of a norm in overrides of a model, as in `{"norm": "iln"}`, by the norm's configuration.

    Raises:
        UserError: unknown norm.
    """
    return {key: norm_config(value) if key == "norm" and isinstance(value, str) else value for key, value in overrides.items()}


def trust_of(cfg: DictConfig) -> Trust:
    """Return which classes files may name: those of the packages in `trust`, and those named in the configuration that the user composed.

    Raises:
        UserError: `trust` is not a list of packages.
    """
    packages: Any = _plain(cfg.get("trust")) or ()
    return Trust(packages, foreign_targets(OmegaConf.to_container(cfg, resolve=False)))


def resume_command(folder: Path, config: Any) -> str:
    """Return the command that resumes a run, including the packages to trust.

    Args:
        folder: folder of the run.
        config: configuration of the run as plain values.
    """
    packages = foreign_packages(config)
    trust = [f"'trust=[{','.join(packages)}]'"] if packages else []
    return " ".join(["python train.py", *map(shlex.quote, config_dir_arguments()), f"resume={os.path.relpath(folder)}", *trust])


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def instantiate(node: DictConfig | dict[str, Any], **arguments: Any) -> Any:
    """Instantiate the `_target_` of a config node, with additional arguments.

    Raises:
        UserError: the class does not exist or rejects an argument.
    """
    try:
        return hydra.utils.instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise UserError(f"{node.get('name') or node.get('_target_')}: {_first_line(cause)}") from error


def build_network(model: DictConfig | dict[str, Any]) -> nn.Module:
    """Build a network from the `model` section of a configuration, which includes its norm.

    Raises:
        UserError: the configuration or the network is invalid, or the network does not fit into memory.
    """
    from irformer.models.interface import enable_checkpointing, require_network

    config: Any = OmegaConf.to_container(model, resolve=True) if isinstance(model, DictConfig) else dict(model)
    node = network_arguments(config)
    check_node("model", node)
    _require_memory(node)
    network: nn.Module = instantiate(node)
    with naming("model: "):
        require_network(network, str(node.get("_target_")))
    if config.get("checkpointing", False):
        enable_checkpointing(network, str(node.get("_target_")))
    return network


def _require_memory(node: dict[str, Any]) -> None:
    """Check that the parameters and buffers of a network fit into this machine's memory, before allocating them.

    Raises:
        UserError: they do not fit.
    """
    if not hasattr(os, "sysconf"):  # Windows rejects such an allocation itself
        return
    import torch

    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            network = hydra.utils.instantiate(node, _convert_="all")
        needed = sum(value.nbytes for value in [*network.parameters(), *network.buffers()])
    except Exception:  # not every network can be built on the meta device; errors are reported when it is built
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise UserError(
            f"model: its parameters and buffers need {needed / 2**30:,.1f} GiB, but this machine has {memory / 2**30:,.1f} GiB: "
            "choose a smaller network"
        )


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
