"""Files of earlier versions name classes by the modules in which they were."""

import json
import pkgutil

import pytest
from omegaconf import OmegaConf

from irformer.config.compose import compose
from irformer.config.saved import read_saved_config
from irformer.config.tasks import build_task
from irformer.core.moved import _CLASSES, _MODULES, with_current_names
from irformer.core.trust import Trust, targets
from irformer.weights.records import parse_record


def as_earlier_versions_wrote_it(text: str) -> str:
    for old, new in _MODULES.items():
        text = text.replace(f"{new}.", f"{old}.")
    for old, new in _CLASSES.items():
        text = text.replace(new, old)
    return text


def test_a_saved_configuration_of_an_earlier_version_is_read(tmp_path):
    cfg = compose("train", ["task=denoise_color_25"])
    file = tmp_path / "config.yaml"
    file.write_text(as_earlier_versions_wrote_it(OmegaConf.to_yaml(cfg)))
    assert "irformer.training.guard.Guard" in file.read_text()
    assert "irformer.degradations.GaussianNoise" in file.read_text()
    assert read_saved_config(file, Trust(), whole=True) == OmegaConf.create(OmegaConf.to_yaml(cfg))


def test_the_record_of_an_earlier_weights_file_is_read():
    task = OmegaConf.to_container(compose("train", ["task=sr_x2"]).task, resolve=True)
    record = {"model": {"_target_": "irformer.models.SwinIR"}, "task": "sr_x2", "task_config": task}
    assert parse_record(as_earlier_versions_wrote_it(json.dumps(record)))["task_config"] == task


@pytest.mark.parametrize("name", sorted([*_MODULES.values(), *_CLASSES.values()]))
def test_the_table_gives_names_that_exist(name):
    assert pkgutil.resolve_name(name)


def test_configurations_that_users_wrote_earlier_still_compose():
    words = ["task.protocol._target_=irformer.tasks.Protocol"]
    task = build_task(compose("train", ["task=sr_x2", *words]).task)
    assert (task.protocol.border, task.label) == (2, "sr_x2")


def test_only_targets_are_renamed():
    node = {"name": "irformer.training.guard.Guard", "parts": [{"_target_": "irformer.training.guard.Guard"}, {"_target_": 3}]}
    assert list(targets(with_current_names(node))) == ["irformer.training.callbacks.guard.Guard", 3]
    assert with_current_names(node)["name"] == "irformer.training.guard.Guard"
