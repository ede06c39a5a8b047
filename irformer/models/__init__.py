"""Networks, architecture only: one file each. A new one is one file here and one yaml in configs/model.

A network takes what it needs by name, its `NormScheme` among it; `interface` says what the rest of the project asks of it. What windowed
networks have around their groups is in `frame`, within them in `layers`. `external` holds networks of other projects.
"""

from irformer.models.drct import DRCT
from irformer.models.external import External
from irformer.models.hat import HAT
from irformer.models.restormer import Restormer
from irformer.models.swinir import SwinIR

__all__ = ["DRCT", "HAT", "External", "Restormer", "SwinIR"]
