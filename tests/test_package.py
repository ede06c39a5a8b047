"""What an installed package carries along."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from irformer.config.compose import build_network, compose, options
from irformer.core.folders import CONFIGS

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.parametrize("model", [name for name in options("model") if not name.startswith("_")])
def test_every_model_composes(model):
    task = [] if model.startswith("restormer") is False else ["task.scale=1"]
    cfg = compose("train", [f"model={model}", "name=test", *task])
    if model.endswith("tiny"):
        assert sum(p.numel() for p in build_network(cfg.model).parameters()) < 600_000


@pytest.mark.slow
def test_a_wheel_carries_configs_template_and_published_numbers(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(REPOSITORY)]
    subprocess.run(build, check=True, timeout=300)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    expected = {f"irformer/configs/{path.relative_to(CONFIGS).as_posix()}" for path in CONFIGS.rglob("*.yaml")}
    templates = REPOSITORY / "irformer" / "reporting" / "templates"
    expected |= {path.relative_to(REPOSITORY).as_posix() for path in templates.rglob("*") if path.is_file()}
    assert expected | {"irformer/evaluation/published.json"} <= names
