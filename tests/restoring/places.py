"""A place to restore images in, for the tests of scripts/restore.py."""

from pathlib import Path

import torch
from omegaconf import OmegaConf

from irformer.config.compose import build_network, compose
from irformer.weights.checkpoints import save_network


def save(path: Path, channels: int = 3) -> Path:
    """An untrained network of scale 2 in a file of weights."""
    words = ["model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]", f"task.channels={channels}", "name=x"]
    cfg = compose("train", words)
    torch.manual_seed(0)
    network = build_network(cfg.model)
    model = OmegaConf.to_container(cfg.model, resolve=True)
    save_network(path, network, model, "sr_x2", 1, {})
    return path


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
