"""Network architectures, one file each. A new network needs one file here and one YAML file in configs/model.

A network takes its arguments by name, including its `NormScheme`. `interface` defines the contract of networks. `frame` and `windows` hold
what the window-based networks share: the parts around the groups of blocks, and window attention. `external` wraps foreign networks.
"""

from irformer.models.drct import DRCT
from irformer.models.external import External
from irformer.models.hat import HAT
from irformer.models.restormer import Restormer
from irformer.models.swinir import SwinIR

__all__ = ["DRCT", "HAT", "External", "Restormer", "SwinIR"]
