"""The normalization scheme of a network: the norm of its blocks, its ends and its input."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from irformer.norms.layers import Affine, LayerNorm, NoNorm, NormFactory

Ends = Literal["same", "ln", "affine", "none"]


@dataclass(frozen=True)
class NormScheme:
    """How a network is normalized: the norm of its blocks, the norm at its ends, and whether its input is standardized.

    The official i-LN networks differ from their LayerNorm baselines in all three; here each can be set separately.

    Args:
        name: the name that selects it (`norm=NAME`).
        block: builds the norm of the residual blocks from (dim, channels_first=...).
        ends: the norm after the patch embedding and before the last convolution of the body: `same` as in the blocks, `ln`,
            `affine`, or `none`. With `same`, a learned scale (LayerScale, ReZero) is unused there and gets no gradient.
        standardize_input: after subtracting the mean, divide the input by the RGB standard deviation of DIV2K, and multiply the
            output by it, as official i-LN does (its `stdnorm`).
    """

    name: str
    block: NormFactory
    ends: Ends = "same"
    standardize_input: bool = False

    def __post_init__(self) -> None:
        if self.ends not in get_args(Ends):
            raise ValueError(f"norm.ends={self.ends}: expected same, ln, affine or none")

    def end(self, dim: int, channels_first: bool = False) -> nn.Module:
        """Build the norm for one of the network's ends. It is not part of a residual branch, so its scale is unused."""
        factory: NormFactory = {"same": self.block, "ln": LayerNorm, "affine": Affine, "none": NoNorm}[self.ends]
        return factory(dim, channels_first=channels_first)
