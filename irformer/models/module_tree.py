"""The repeated parts of a network of unknown structure: its groups, and the blocks that they consist of."""

from torch import nn

_CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # never called themselves, unlike nn.Sequential; nor is a bare nn.Module

# Share of the parameters of a module that its repeated parts hold in all, and each kind of them by itself.
_MOST, _SOME = 0.5, 0.1


def repeated_parts(network: nn.Module) -> tuple[list[str], list[str]]:
    """Find the groups and blocks of a network from its module tree.

    The groups are the outermost modules that occur at least twice, by class, and together hold at least half of the parameters of the
    module they belong to: the layers of a transformer, the residual blocks of a CNN, the stages of an encoder and a decoder. Classes with
    less than a tenth of the parameters do not count. The blocks are the repeated modules within a group, by the same rule.

    Args:
        network: any network.

    Returns:
        The names of the groups and of the blocks, in the order of registration; both may be empty. Layers without children are groups only
        if there are no others, and never blocks.
    """
    groups = _repeated(network, "", leaves=False) or _repeated(network, "", leaves=True)
    blocks = [name for group in groups for name in _repeated(network.get_submodule(group), f"{group}.", leaves=False)]
    return groups, blocks


def _repeated(module: nn.Module, prefix: str, leaves: bool) -> list[str]:
    """Return the repeated parts of a module or, where it has none, those of the part whose repeated parts are the largest."""
    parts = _parts(module, prefix)
    sizes = {name: _size(part) for name, part in parts.items()}
    by_kind: dict[object, list[str]] = {}
    for name, part in parts.items():
        if leaves or next(part.children(), None) is not None:
            by_kind.setdefault(_kind(part), []).append(name)
    whole = _size(module)
    several = [names for names in by_kind.values() if len(names) > 1 and sum(sizes[name] for name in names) >= _SOME * whole]
    repeated = {name for names in several for name in names}
    if repeated and sum(sizes[name] for name in repeated) >= _MOST * whole:
        return [name for name in parts if name in repeated]
    largest: list[str] = []
    most = 0
    for place, part in parts.items():
        found = _repeated(part, f"{place}.", leaves)
        size = sum(_size(part.get_submodule(name.removeprefix(f"{place}."))) for name in found)
        if size > most:
            largest, most = found, size
    return largest


def _parts(module: nn.Module, prefix: str) -> dict[str, nn.Module]:
    """Return the children with parameters by their full name, those of lists in place of the lists."""
    parts: dict[str, nn.Module] = {}
    for name, child in module.named_children():
        if isinstance(child, _CONTAINERS) or type(child) is nn.Module:
            parts |= _parts(child, f"{prefix}{name}.")
        elif next(child.parameters(), None) is not None:
            parts[f"{prefix}{name}"] = child
    return parts


def _kind(module: nn.Module) -> object:
    """Return the class of a module; of a sequence, that of its largest part as well."""
    if not isinstance(module, nn.Sequential):
        return type(module)
    return nn.Sequential, type(max(module, key=_size, default=None))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
