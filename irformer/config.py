"""From configuration files and overrides to objects: where Hydra is used, besides the commands."""

import difflib
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from irformer.errors import UserError

_PACKAGED = Path(__file__).parent / "configs"
# In a clone the configs stand at the top, for people to read and change; an installed package carries its own.
CONFIGS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parent.parent / "configs"


def compose(name: str, overrides: list[str]) -> DictConfig:
    """Compose a configuration from Python, as the command line does.

    Args:
        name: `train` or `benchmark`.
        overrides: as on the command line, e.g. ["norm=iln", "optim.lr=1e-4"].
    """
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra.compose(name, overrides)


def options(group: str) -> list[str]:
    """The names that a config group offers."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def nearest(word: str, known: list[str]) -> str:
    """The end of a message about an unknown word: the known one that is most like it, or nothing."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


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
    return instantiate({key: value for key, value in config.items() if key != "name"})


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
