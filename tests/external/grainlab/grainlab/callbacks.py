"""A callback: counts the training patches of a run, also when it is resumed."""

from typing import Any

import lightning


class Patches(lightning.Callback):
    """Logs `train/patches`. Its state is plain data: checkpoints contain it, and are loaded without running code."""

    def __init__(self) -> None:
        self.seen = 0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count and log the patches of a batch."""
        self.seen += len(batch["lq"]) * trainer.world_size
        pl_module.log("train/patches", float(self.seen))

    def state_dict(self) -> dict[str, Any]:
        """Return the count."""
        return {"seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count."""
        self.seen = state_dict["seen"]
