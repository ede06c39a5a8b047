"""Classes that do not fulfill their contract raise one-line errors before training."""

import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from irformer.config.compose import compose
from irformer.datasets.catalog import SAMPLE_VAL, sample_photos
from irformer.errors import UserError
from irformer.imaging.images import read_image, write_image
from irformer.training.build import build_run

TINY = [
    *("trainer=cpu", "logger=csv", "batch_size=2", "patch_size=16", "data=sample", "data.val=cut", "test_sets=[cut]"),
    *("trainer.max_steps=2", "trainer.log_every_n_steps=1", "callbacks.probe.every=1", "callbacks.monitor=null"),
]
SCRATCH = '''
import torch
from pathlib import Path
from torch import nn
import lightning

class Short(nn.Module):
    """A norm without channels_first."""
    def __init__(self, dim):
        super().__init__()

class Bare(nn.Module):
    """A norm without a scale."""
    def __init__(self, dim, channels_first=False):
        super().__init__()
    def forward(self, x):
        return x

class Wide(Bare):
    def forward(self, x):
        return x, x.new_ones(2)

class Net(nn.Module):
    scale, in_channels = 2, 3
    def __init__(self, plain: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        if not plain:
            self.groups = nn.ModuleList([self.conv])
    def forward(self, x):
        return nn.functional.pixel_shuffle(self.conv(x), 2)

class One(Net):
    def forward(self, x):
        return super().forward(x.reshape(1, *x.shape[1:]))

class Detached(Net):
    def forward(self, x):
        return super().forward(x).detach()

class Pixels(nn.Module):
    def forward(self, restored, clean):
        return restored - clean

class Constant(nn.Module):
    def forward(self, restored, clean):
        return clean.mean()

class Adamant:
    def __init__(self, params, lr, betas, weight_decay):
        pass

class Steps:
    def __call__(self, step):
        return None

class Meter(lightning.Callback):
    def state_dict(self):
        return {"file": Path("x")}

class Nothing:
    pass

class Anything:
    def __init__(self, **arguments):
        pass

class Gamma:
    grid = turned_first = 1
    def test(self, image):
        return image
    def degrade_patch(self, image, rng):
        return image

class Huge(Net):
    def __init__(self, positions: int):
        super().__init__()
'''


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """The current folder, with the module scratch and one small image for validation and tests."""
    (tmp_path / "cut").mkdir()
    write_image(tmp_path / "cut" / "eye.png", read_image(sample_photos(SAMPLE_VAL)[1])[80:113, 100:130])
    (tmp_path / "scratch.py").write_text(SCRATCH)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("scratch", None)


SWINIR = ["model=swinir_tiny", "model.embed_dim=8", "model.depths=[1]", "model.num_heads=[2]"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["norm.block._target_=scratch.Short", "~norm.block.eps"],
            r"norm\.block: scratch\.Short cannot be called as \(dim, channels_first=True\): got an unexpected keyword .*",
        ),
        (
            ["norm.block._target_=scratch.Bare", "~norm.block.eps"],
            r"norm\.block: scratch\.Bare returns a Tensor: expected \(y, scale\), where scale None means 1",
        ),
        (
            ["norm.block._target_=scratch.Wide", "~norm.block.eps"],
            r"norm\.block: scratch\.Wide returns a scale of shape \(2,\): expected one that broadcasts over \(1, 16, 16, 8\)",
        ),
        (
            ["model={_target_: scratch.Net, name: net, plain: false}"],
            r"model: scratch\.Net: groups is a ModuleList: expected a dict that maps group names to modules",
        ),
        (
            ["model={_target_: scratch.Net, name: net}", "task.name=sr_x4", "task.scale=4"],
            r"model=net has scale 2 and 3 channels, and task=sr_x4 needs scale 4 and 3 channels: choose another task or other arguments",
        ),
        (
            ["model={_target_: scratch.Huge, name: net, positions: 200000}"],
            r"the weights of this run could not be loaded again: the sizes in the record of its network add up to more than 131,072; .*",
        ),
        (
            ["model={_target_: scratch.One, name: one}"],
            r"model=one: in training mode, on a batch of 2 images of 16x16 pixels, it fails \(RuntimeError: .*\)",
        ),
        (
            ["model={_target_: scratch.Detached, name: detached}"],
            r"model=detached: in training mode it returns images without a gradient: expected them to be computed from its parameters",
        ),
        (
            ["loss={_target_: scratch.Pixels}"],
            r"loss: scratch\.Pixels returns shape \(2, 3, 32, 32\): expected a scalar tensor .*",
        ),
        (["loss={_target_: scratch.Constant}"], r"loss: scratch\.Constant returns a scalar without a gradient: expected one that is .*"),
        (
            ["loss={_target_: scratch.Nothing}"],
            r"loss: scratch\.Nothing is not callable: expected loss\(restored, clean\)",
        ),
        (
            ["optim.optimizer._target_=scratch.Adamant"],
            r"optim\.optimizer: scratch\.Adamant builds a Adamant: expected a torch\.optim\.Optimizer",
        ),
        (
            ["optim.schedule={_target_: scratch.Steps}"],
            r"optim\.schedule: scratch\.Steps returns None at step 0: expected a number, the factor of the learning rate",
        ),
        (
            ["optim.schedule={_target_: scratch.Nothing}"],
            r"optim\.schedule: scratch\.Nothing is not callable: expected schedule\(step\), the factor of the learning rate",
        ),
        (
            ["+callbacks.mine={_target_: scratch.Nothing}"],
            r"callbacks\.mine: scratch\.Nothing is not a callback: expected a subclass of lightning\.Callback \(not .*\)",
        ),
        (
            ["+callbacks.mine={_target_: scratch.Meter}"],
            r"callbacks\.mine: the state of scratch\.Meter contains a PosixPath, which a resumed run cannot load: expected tensors, .*",
        ),
        (
            ["task.degradation={_target_: scratch.Nothing}"],
            r"task\.degradation: scratch\.Nothing has no method test\(image\), which degrades a test image \[H, W, C\]",
        ),
        (
            ["task.degradation={_target_: scratch.Gamma}"],
            r"task\.degradation: scratch\.Gamma has a method degrade_patch but no margin; expected the attributes of irformer\.\S+",
        ),
        (
            ["task._target_=scratch.Anything"],
            r"task: scratch\.Anything is not an irformer\.tasks\.Task; expected that class or a subclass",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_class_that_does_not_fulfill_its_contract_is_rejected_before_training(scratch, words, expected):
    cfg = compose("train", [*SWINIR, *TINY, "name=x"])
    with pytest.raises(UserError, match=f"^{expected}$"):
        build_run(compose_with(cfg, words), scratch / "runs" / "x")


def compose_with(cfg: DictConfig, words: list[str]) -> DictConfig:
    """A configuration with replaced nodes, which the command line would read from files."""
    OmegaConf.set_struct(cfg, False)
    for word in words:
        if word.startswith("~"):
            parent, _, last = word[1:].rpartition(".")
            OmegaConf.select(cfg, parent).pop(last)
        else:
            key, _, value = word.lstrip("+").partition("=")
            OmegaConf.update(cfg, key, yaml.safe_load(value), merge=False)
    return cfg
