"""Layers of a network, selected by kind or by a pattern of module names."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from irformer.core.words import nearest
from irformer.errors import UserError
from irformer.models.interface import groups_of, is_channels_first, layer_names_of

GROUPS = "groups"

# Modules whose outputs have a known layout in any network.
_CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.PixelShuffle, nn.PixelUnshuffle)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm)


@dataclass(frozen=True)
class Layer:
    """A module whose output is measured.

    Args:
        kind: the word that selected it: `groups`, another kind of layers that the network declares, or a pattern.
        index: its place among the layers of this kind, from 0, in order of depth.
        name: name of the module in the network.
        module: the module.
        channels_first: whether its output is [B, C, H, W] instead of [B, ..., C]; one of three axes is [B, N, C] in any case.
    """

    kind: str
    index: int
    name: str
    module: nn.Module
    channels_first: bool

    def features(self, output: object) -> Tensor:
        """Return the features [B, ..., C] in the module's output: the output itself, or the first part of a tuple, as of a norm.

        Raises:
            UserError: the output contains no features.
        """
        if isinstance(output, tuple | list) and len(output) > 0:
            output = output[0]
        if not (isinstance(output, Tensor) and output.is_floating_point() and output.dim() >= 2):
            found = f"{output.dtype} {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise UserError(
                f"layers={self.kind}: {self.name} returns {found}: expected features [B, C, H, W] or [B, ..., C]; use a pattern that "
                "does not match it"
            )
        return output.movedim(1, -1) if self.channels_first and output.dim() > 3 else output


def select_layers(network: nn.Module, words: Sequence[str], key: str = "layers") -> list[Layer]:
    """Select layers of a network.

    Args:
        network: see `irformer.models.interface.Network`.
        words: each is `groups`, another kind of layers that the network declares (`blocks`, `attention`, `mlp`, `norms`), or a pattern of
            module names, in which `*` matches any characters but dots, and `**` any number of names: `layers.*`, `**.attn`.
        key: name of the words in messages.

    Returns:
        The layers of each word in order of depth. A module that several words select is a layer of the first one. A network without
        groups has no layers of the word `groups`.

    Raises:
        UserError: a word selects nothing.
    """
    modules = {name: module for name, module in network.named_modules(remove_duplicate=False) if name}
    kinds = layer_names_of(network)
    layers: list[Layer] = []
    known: set[str] = set()
    for word in words:
        if word == GROUPS:
            found = groups_of(network)
        else:
            found = {name: modules[name] for name in matching(kinds.get(word, [word]), modules)}
            if not found:
                words_known = ", ".join([GROUPS, *kinds])
                raise UserError(
                    f"{key}={word}: no module of {type(network).__name__} matches; use {words_known}, or a pattern of names such as "
                    f"{', '.join(_examples(list(modules)))}{nearest(word, [GROUPS, *kinds, *modules])}"
                )
        layers += [
            Layer(word, index, name, module, _is_channels_first(module, network))
            for index, (name, module) in enumerate(found.items())
            if name not in known
        ]
        known |= found.keys()
    return layers


def matching(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the names that match any of the patterns, in their own order; `select_layers` describes patterns."""
    expressions = [_expression(pattern) for pattern in patterns]
    return [name for name in names if any(expression.fullmatch(name) for expression in expressions)]


def _expression(pattern: str) -> re.Pattern[str]:
    """Translate a pattern: `*` matches any characters but dots, and `**` any number of names."""
    *parents, last = pattern.split(".")
    text = "".join(r"(?:[^.]+\.)*" if parent == "**" else rf"{_name(parent)}\." for parent in parents)
    return re.compile(text + (".+" if last == "**" else _name(last)))


def _name(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", "[^.]*")


def _examples(names: list[str]) -> list[str]:
    """Return a few names, of different depths."""
    by_depth: dict[int, str] = {}
    for name in names:
        by_depth.setdefault(name.count("."), name)
    return list(by_depth.values())[:4]


def _is_channels_first(module: nn.Module, network: nn.Module) -> bool:
    known = _layout(module)
    return is_channels_first(network) if known is None else known


def _layout(module: nn.Module) -> bool | None:
    """Return whether a module's output is [B, C, H, W]: as it declares, as its class implies, or as its last part does; None if unknown."""
    declared = getattr(module, "channels_first", None)
    if isinstance(declared, bool):
        return declared
    if isinstance(module, _CHANNELS_FIRST):
        return True
    if isinstance(module, _CHANNELS_LAST):
        return False
    if isinstance(module, nn.Sequential):
        return next((known for part in reversed(module) if (known := _layout(part)) is not None), None)
    return None
