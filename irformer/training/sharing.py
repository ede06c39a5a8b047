"""Splitting a global batch among processes and accumulated batches, and checks for FSDP."""

from collections.abc import Sequence

import lightning
import torch
from omegaconf import DictConfig

from irformer.errors import UserError


def share_batch(trainer: lightning.Trainer, batch_sizes: Sequence[int], limit: int | None) -> None:
    """Set the number of accumulated batches, so that the global batch has the configured size on any number of devices.

    Only this function checks that batches can be split evenly, and converts optimizer steps to the batches that Lightning counts.

    Args:
        trainer: built with the configured `accumulate_grad_batches` and with `val_check_interval` in optimizer steps; both are updated.
        batch_sizes: global batch sizes in the run.
        limit: maximum number of patches that one device processes at once; larger batches are split into the fewest accumulated batches.

    Raises:
        UserError: a batch cannot be split evenly.
    """
    processes, accumulated = trainer.world_size, trainer.accumulate_grad_batches
    if limit is not None:
        if accumulated != 1:
            raise UserError(
                f"max_batch_per_device={limit} determines the number of accumulated batches, but trainer.accumulate_grad_batches="
                f"{accumulated} sets it too: use only one of the two"
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
                f"batch_size={size} (global) cannot be split evenly among {processes} processes and {accumulated} accumulated batches: "
                f"use a multiple of {parts}"
            )


def refuse_unsupported_with_fsdp(cfg: DictConfig) -> None:
    """Refuse settings that FSDP does not support, before Lightning fails during training.

    Weight averaging (lightning.pytorch.callbacks.WeightAveraging) copies the whole network before it is sharded and is then given shards.
    The probe calls parts of the network separately, whose weights are on other devices. FSDPPrecision does not clip by norm.

    Raises:
        UserError: trainer.strategy is FSDP, and another setting is not supported with it.
    """
    if not str(cfg.trainer.strategy).startswith("fsdp"):
        return
    if cfg.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        raise UserError("trainer.strategy=fsdp requires GPUs, but none is available: use trainer=ddp, or trainer=ddp_spawn on the CPU")
    if cfg.trainer.compile is not False:
        raise UserError("trainer.compile has not been tested with trainer.strategy=fsdp: add trainer.compile=false")
    if cfg.optim.ema is not None:
        raise UserError("trainer.strategy=fsdp shards the weights and does not support weight averaging: add optim.ema=null")
    if cfg.callbacks.get("probe") is not None:
        raise UserError("trainer.strategy=fsdp shards the weights and does not support the probe: add callbacks.probe=null")
    if cfg.trainer.gradient_clip_val is not None and cfg.trainer.get("gradient_clip_algorithm", "norm") == "norm":
        raise UserError("trainer.strategy=fsdp does not support clipping by norm: add +trainer.gradient_clip_algorithm=value")
