"""Networks, architecture only: one file each. A new one is one file here and one yaml in configs/model.

A network takes what it needs by name, its `NormScheme` among it; it maps [B, C, H, W] in [0, 1] to [B, C, scale*H, scale*W], pads to
`size_multiple` by itself, and names its groups of blocks in `groups`, in the order of depth, for the probes to read (`channels_first`
says how their outputs are laid out). What windowed networks have around their groups is in `frame`, within them in `layers`.
"""

from irformer.models.drct import DRCT
from irformer.models.hat import HAT
from irformer.models.restormer import Restormer
from irformer.models.swinir import SwinIR

__all__ = ["DRCT", "HAT", "Restormer", "SwinIR"]
