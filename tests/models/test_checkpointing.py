"""Gradient checkpointing: the same gradients with fewer kept activations, and no trace of it in weights files, names and comparisons."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from irformer.config.compose import build_network, compose
from irformer.errors import UserError
from irformer.models import blocks
from irformer.models.interface import groups_of
from irformer.runs.arms import flat_config
from irformer.schema.roles import changed_keys, described
from irformer.weights.checkpoints import load_checkpoint, save_network

NETWORKS = {
    "swinir_tiny": ["model.drop_path_rate=0.5"],
    "hat_tiny": ["model.drop_path_rate=0.5"],
    "drct_tiny": ["model.drop_path_rate=0.5"],
    "restormer_tiny": [],
}


def build(model: str, norm: str, *words: str) -> nn.Module:
    torch.manual_seed(0)
    config = compose("train", [f"model={model}", f"norm={norm}", *NETWORKS[model], *words])
    return build_network(config.model).train()


@contextmanager
def counted_bytes() -> Iterator[list[int]]:
    """Count the bytes that the graph of a forward pass keeps for the backward pass, parameters and views of the same memory once."""
    kept: dict[int, Tensor] = {}
    total = [0]

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        yield total
    total[0] = sum(value.untyped_storage().nbytes() for value in kept.values())


@pytest.mark.parametrize("norm", ["iln", "batch"])
@pytest.mark.parametrize("model", NETWORKS)
def test_gradients_and_statistics_are_the_same_bits_and_most_activations_are_not_kept(model: str, norm: str) -> None:
    plain, checkpointed = build(model, norm), build(model, norm, "model.checkpointing=true")
    kept = []
    for network in (plain, checkpointed):
        torch.manual_seed(1)
        with counted_bytes() as total:
            loss = network(torch.linspace(0, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)).square().mean()
        loss.backward()
        kept.append(total[0])
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert one.grad is not None, name
        assert torch.equal(one.grad, other.grad), name
    for (name, one), other in zip(plain.state_dict().items(), checkpointed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert kept[1] < kept[0] / 2


def test_activations_are_recomputed_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    applied = []
    monkeypatch.setattr(blocks, "checkpoint", lambda group, x, **_: applied.append(group) or group(x))
    network = build("swinir_tiny", "ln", "model.checkpointing=true")
    image = torch.rand(1, 3, 8, 8)
    network(image)
    assert applied == list(groups_of(network).values())
    with torch.no_grad():
        network(image)
    network.eval()(image)
    assert len(applied) == len(groups_of(network))


def test_a_network_without_the_attribute_is_refused() -> None:
    words = ["model=external", "model.network._target_=torch.nn.Identity", "task=denoise_color_25", "model.checkpointing=true"]
    with pytest.raises(UserError, match=r"model\.checkpointing=true: irformer\.models\.External does not support .*max_batch_per_device"):
        build_network(compose("train", words).model)


def test_weights_files_do_not_mention_it(tmp_path: Path) -> None:
    config = compose("train", ["model=swinir_tiny", "norm=ln", "model.checkpointing=true"])
    model: Any = OmegaConf.to_container(config.model, resolve=True)
    save_network(tmp_path / "a.safetensors", build_network(config.model), model, "sr_x2", 1, {})
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert model["checkpointing"] is True
    assert "checkpointing" not in loaded.model
    assert loaded.network.checkpointing is False


def test_runs_with_and_without_it_are_the_same_experiment() -> None:
    with_it, without = (compose("train", ["name=x", "model=hat_tiny", f"model.checkpointing={value}"]) for value in ("true", "false"))
    assert flat_config(with_it) == flat_config(without)
    assert "model.embed_dim" in flat_config(with_it)
    assert changed_keys({"model": {"checkpointing": True, "scale": 2}}, {"model": {"scale": 3}}) == ["model.scale from 2 to 3"]
    assert described("model.checkpointing").resume == "free"
    assert described("model.embed_dim") == described("model")
