"""Where the residual branches of irformer's networks begin and end."""

from torch import nn

from irformer.models.hat import OverlappingCrossAttention
from irformer.models.restormer import RestormerBlock
from irformer.models.windows import SwinBlock

# For each kind of block: the norm at the start of each residual branch, and the layer at its end. The branch of HAT's hybrid block has a
# second end, the channel attention block.
_BRANCHES: dict[type[nn.Module], dict[str, str]] = {
    SwinBlock: {"norm1": "attn.proj", "norm2": "mlp.fc2"},
    OverlappingCrossAttention: {"norm1": "proj", "norm2": "mlp.fc2"},
    RestormerBlock: {"norm1": "attn.project_out", "norm2": "ffn.project_out"},
}


def blocks_of(network: nn.Module) -> dict[str, nn.Module]:
    """Return the blocks of a network that consist of residual branches, by name; empty for networks of other projects."""
    kinds = tuple(_BRANCHES)
    return {name: module for name, module in network.named_modules() if isinstance(module, kinds)}


def branches_of(block: nn.Module) -> dict[str, str]:
    """Return the names of the norm at the start and of the layer at the end of each residual branch of a block."""
    return next(branches for kind, branches in _BRANCHES.items() if isinstance(block, kind))


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put another module in the place of the one with this dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
