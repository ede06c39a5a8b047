"""A callback: counts the patches that the network has seen, through all resumptions of a run."""

from typing import Any

import lightning


class Patches(lightning.Callback):
    """Logs `train/patches`. Its state is plain data, since it is saved with the checkpoint and read without running code."""

    def __init__(self) -> None:
        self.seen = 0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        self.seen += len(batch["lq"]) * trainer.world_size
        pl_module.log("train/patches", float(self.seen))

    def state_dict(self) -> dict[str, Any]:
        """The count."""
        return {"seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume counting."""
        self.seen = state_dict["seen"]
