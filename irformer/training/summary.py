"""The summary of a run: what is trained on which data, with which network, where and for how long."""

import os
from pathlib import Path

import lightning
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from irformer.config.image_sets import TrainingData
from irformer.data.stages import Stages
from irformer.tasks.task import Task
from irformer.training.resuming import Resume
from irformer.training.validation_images import ValidationImages


def takes_norm(cfg: DictConfig) -> bool:
    """Return whether the network takes a norm scheme; networks of other projects may have their own norms."""
    return OmegaConf.is_dict(cfg.model.get("norm"))


def run_summary(
    cfg: DictConfig,
    folder: Path,
    task: Task,
    training: TrainingData,
    stages: Stages,
    validation: ValidationImages,
    network: nn.Module,
    trainer: lightning.Trainer,
    resume: Resume | None,
) -> dict[str, str]:
    """Return what a run prints before it trains and writes into its report: a value by name."""
    parameters = sum(p.numel() for p in network.parameters())
    images = training.images
    sizes = [
        f"{batch} patches of {patch}x{patch} LQ" + (f", {patch * task.scale} HQ" if task.scale > 1 else "")
        for batch, patch in zip(stages.batch_size, stages.patch_size, strict=True)
    ]
    later = "".join(f"; from step {first:,}: {size}" for first, size in zip(stages.first_steps[1:], sizes[1:], strict=True))
    lq = "from files" if images.has_lq else "made on the fly"
    standardized = ", standardized input" if cfg.norm.get("standardize_input") else ""
    norm = (
        f"{cfg.norm.name}, ends {cfg.norm.ends}{standardized}" if takes_norm(cfg) else f"the network's own; norm={cfg.norm.name} is unused"
    )
    device = trainer.strategy.root_device
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    steps = f"{trainer.max_steps:,} of {sizes[0]}{later}"
    return {
        "task": task.label,
        "data": f"{cfg.data.name}, {len(images)} images, {training.read_from}, LQ {lq}",
        "validation": validation.summary,
        "network": f"{cfg.model.name}, {parameters:,} parameters",
        "norm": norm,
        "device": f"{trainer.world_size} x {device_name}, precision {trainer.precision}",
        "steps": steps + (f", from step {resume.step:,}" if resume else ""),
        "folder": os.path.relpath(folder),
    }
