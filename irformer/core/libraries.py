"""What libraries print while irformer uses them."""

import logging
import warnings

from irformer.core.processes import rank


def silence_libraries() -> None:
    """Silence log messages and warnings of libraries, and set up irformer's own log.

    Lightning warns about what irformer does on purpose: a resumed run continues in the middle of an epoch, because the sampler knows the
    position, and batches are prepared by the module rather than by the data module.
    """
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)  # in networks of other projects, about its next default
    # Our own messages, such as the detected layout of a weights file, are shown once.
    own = logging.getLogger("irformer")
    own.setLevel(logging.INFO if rank() == 0 else logging.ERROR)
    own.handlers = [logging.StreamHandler()]
