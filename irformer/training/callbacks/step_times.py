"""Times whole training steps against something else, in turn, within one run."""

import time
from collections.abc import Callable
from typing import Any

import lightning
import torch


class StepTimes(lightning.Callback):
    """Times blocks of training steps, calls `between` after each block, and ends the run after the last one.

    The first block is not counted: it starts workers and fills caches. A block starts when `between` returns and ends after all other
    callbacks of its last step, so this must be the last callback.

    Args:
        block: steps in a block.
        rounds: number of counted blocks.
        between: called after each block, outside of its time.
    """

    def __init__(self, block: int, rounds: int, between: Callable[[], object]) -> None:
        self.seconds: list[float] = []
        self._block = block
        self._rounds = rounds
        self._between = between
        self._started: float | None = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End a block, call `between` and start the next block."""
        if (batch_idx + 1) % self._block != 0:
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        if self._started is not None:
            self.seconds.append((time.perf_counter() - self._started) / self._block)
        if len(self.seconds) == self._rounds:
            trainer.should_stop = True
            return
        self._between()
        self._started = time.perf_counter()
