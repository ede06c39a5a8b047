"""What `import irformer` offers."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import irformer
from irformer import create_model, list_models, list_norms, load_network
from irformer.config.compose import build_network, compose
from irformer.errors import UserError
from irformer.models import HAT
from irformer.norms import ILN
from irformer.weights.exports import export_official


def test_examples_in_docstrings():
    found = doctest.testmod(irformer)
    assert found.attempted >= 4
    assert not found.failed


def test_importing_irformer_imports_nothing_heavy():
    code = "import irformer, sys; print(*[name for name in ('torch', 'hydra', 'lightning', 'numpy') if name in sys.modules])"
    folder = Path(irformer.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout.strip() == ""


def test_a_model_is_that_of_the_command_line():
    torch.manual_seed(0)
    network = create_model("hat_tiny", norm="iln", scale=4)
    torch.manual_seed(0)
    composed = build_network(compose("train", ["model=hat_tiny", "norm=iln", "task=sr_x4", "name=test"]).model)
    assert isinstance(network, HAT)
    assert network.training
    x = torch.rand(1, 3, 9, 12)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), composed.eval()(x), rtol=0, atol=0)


def test_overrides_reach_network_and_norm():
    network = create_model("swinir_tiny", "iln", 2, 1, {"depths": [1], "num_heads": [2], "norm.block.eps": 1e-6, "norm": {"ends": "none"}})
    assert (network.in_channels, len(network.groups)) == (1, 1)
    assert {module.eps for module in network.modules() if isinstance(module, ILN)} == {1e-6}
    assert not list(network.norm.parameters())


def test_scale_is_the_class_s_own_where_it_is_not_given():
    assert create_model("restormer_tiny").scale == 1
    assert create_model("swinir_tiny").scale == 2


def test_unknown_words_are_named_with_the_nearest():
    with pytest.raises(UserError, match=r"model=swinnir: unknown model; known: .*; did you mean swinir\?"):
        create_model("swinnir")
    with pytest.raises(UserError, match=r"norm=il: unknown norm; known: .*; did you mean iln\?"):
        create_model("swinir_tiny", "il")
    with pytest.raises(UserError, match=r"model\.depth: unknown key; known: .*; did you mean depths\?"):
        create_model("swinir_tiny", overrides={"depth": [2]})
    with pytest.raises(UserError, match=r"5 heads do not divide 48 channels"):
        create_model("swinir_tiny", overrides={"num_heads": [5, 5, 5, 5]})


def test_lists_are_the_files_of_the_configs():
    assert {"swinir", "hat", "hat_mini", "drct", "restormer"} <= set(list_models())
    assert {"ln", "iln", "rms", "none", "batch", "layerscale"} <= set(list_norms())


def test_a_network_comes_back_in_evaluation_mode(tmp_path):
    network = create_model("swinir_tiny", overrides={"drop_path_rate": 0.5})
    export_official(network, tmp_path / "network.pth")
    loaded = load_network(str(tmp_path / "network.pth"))
    assert not loaded.training
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), network.eval()(x))
