"""How one optimizer step is shared by processes and accumulated batches, and which ways of sharing a network can be had."""

from collections.abc import Sequence

import lightning
import torch
from omegaconf import DictConfig

from irformer.errors import UserError


def share_batch(trainer: lightning.Trainer, batch_sizes: Sequence[int], limit: int | None) -> None:
    """Settle how many batches are accumulated, so that the global batch is what the configuration states, whatever the devices.

    This is the only place that checks how a batch is shared, and that converts optimizer steps to the batches that Lightning counts.

    Args:
        trainer: built for one batch a step or as many as the configuration asks for, with `val_check_interval` in optimizer steps;
            its counters of batches are set.
        batch_sizes: global batch sizes that occur in the run.
        limit: patches that one device takes at once; where the share of a step is larger, the fewest batches that fit are accumulated.

    Raises:
        UserError: a batch cannot be shared evenly.
    """
    processes, accumulated = trainer.world_size, trainer.accumulate_grad_batches
    if limit is not None:
        if accumulated != 1:
            raise UserError(
                f"max_batch_per_device={limit} derives the accumulated batches, and trainer.accumulate_grad_batches={accumulated} "
                "sets them: give one of the two"
            )
        _require_shares(batch_sizes, processes, 1)
        shares = [size // processes for size in batch_sizes]
        accumulated = next(n for n in range(1, max(shares) + 1) if all(share % n == 0 and share // n <= limit for share in shares))
        trainer.accumulate_grad_batches = accumulated
    _require_shares(batch_sizes, processes, accumulated)
    trainer.val_check_interval = int(trainer.val_check_interval) * accumulated


def _require_shares(batch_sizes: Sequence[int], processes: int, accumulated: int) -> None:
    parts = processes * accumulated
    for size in batch_sizes:
        if size % parts:
            raise UserError(
                f"batch_size={size} (global) cannot be shared by {processes} processes and {accumulated} accumulated batches: "
                f"use a multiple of {parts}"
            )


def refuse_what_fsdp_cannot(cfg: DictConfig) -> None:
    """Name what a sharded network cannot do, before Lightning fails in the middle of it.

    Averaging copies the whole network before it is sharded and then meets shards (lightning.pytorch.callbacks.WeightAveraging); the
    probe calls parts of the network by themselves, whose weights are elsewhere; FSDPPrecision clips no norms.

    Raises:
        UserError: trainer.strategy is FSDP, and something else does not go with it.
    """
    if not str(cfg.trainer.strategy).startswith("fsdp"):
        return
    if cfg.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        raise UserError("trainer.strategy=fsdp needs GPUs, and there is none here: trainer=ddp, or on the CPU trainer=ddp_spawn")
    if cfg.optim.ema is not None:
        raise UserError("trainer.strategy=fsdp shards the weights, and their average cannot follow: add optim.ema=null")
    if cfg.callbacks.get("probe") is not None:
        raise UserError("trainer.strategy=fsdp shards the weights, and the probe cannot see them: add callbacks.probe=null")
    if cfg.trainer.gradient_clip_val is not None and cfg.trainer.get("gradient_clip_algorithm", "norm") == "norm":
        raise UserError("trainer.strategy=fsdp cannot clip the gradient's norm: add +trainer.gradient_clip_algorithm=value")
