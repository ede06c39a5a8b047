"""Weights files that should be refused: a function for each, which writes the file, and what its refusal says."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from official import official
from safetensors.torch import save_file
from torch import Tensor

from irformer.config.compose import build_network, model_config

PROOF = "ran-code"  # what a file that runs code would leave in the current folder
SIZES = {"embed_dim": 8, "depths": [1], "num_heads": [2]}


def model(**changes: Any) -> dict[str, Any]:
    """The configuration of a tiny SwinIR."""
    written = {key: value for key, value in model_config("swinir_tiny", "ln", 2, 3).items() if key != "checkpointing"}
    return {**written, **SIZES, **changes}


def weights() -> dict[str, Tensor]:
    """Weights of that network."""
    torch.manual_seed(0)
    return {name: value.clone() for name, value in build_network(model()).state_dict().items()}


def with_record(record: Any) -> Callable[[Path], Path]:
    """A .safetensors file with a record, given as text or as what JSON is made of."""

    def write(folder: Path) -> Path:
        text = record if isinstance(record, str) else json.dumps(record)
        save_file(weights(), folder / "evil.safetensors", {"irformer": text})
        return folder / "evil.safetensors"

    return write


def with_model(**changes: Any) -> Callable[[Path], Path]:
    """A .safetensors file whose record describes a changed network."""
    return lambda folder: with_record({"model": model(**changes), "task": "sr_x2", "step": 1})(folder)


def with_weights(change: Callable[[dict[Any, Any]], Any], suffix: str = ".pth") -> Callable[[Path], Path]:
    """A pickled file of official weights that were changed."""

    def write(folder: Path) -> Path:
        state: dict[Any, Any] = dict(official("swinir_light_x4").state_dict())
        content = change(state) or state
        torch.save(content, folder / f"evil{suffix}")
        return folder / f"evil{suffix}"

    return write


def norm(block: str) -> dict[str, Any]:
    return {"_target_": "irformer.norms.NormScheme", "name": "ln", "block": {"_target_": block, "_partial_": True}}


class RunsCode:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (PROOF,)


def contains_itself(state: dict) -> dict:
    outer: dict = {"model": None}
    outer["model"] = outer
    return outer


def deeply_wrapped(state: dict) -> dict:
    for _ in range(50):
        state = {"state_dict": state}
    return state


def replaced(name: str, change: Callable[[Tensor], Any]) -> Callable[[dict], None]:
    def change_one(state: dict) -> None:
        state[name] = change(state[name])

    return change_one


def not_finite(state: dict) -> None:
    state["conv_first.weight"].view(-1)[:3] = torch.tensor([float("nan"), float("inf"), -float("inf")])


def tuple_bomb(folder: Path) -> Path:
    """A pickle of 300 bytes whose one key is a tuple of 2^40 values: hashing it takes hours."""
    bomb: tuple = ()
    for _ in range(40):
        bomb = (bomb, bomb)

    class Shared(dict):
        def __reduce__(self):
            return dict, ([(bomb, 1)],)

    # Written by hand, since a dict with such a key cannot be made.
    body = io.BytesIO()
    pickler = pickle.Pickler(body, protocol=2)
    pickler.dump(bomb)
    data = b"\x80\x02}" + body.getvalue()[2:-1] + b"K\x01s."
    file = folder / "evil.pth"
    torch.save({"a": torch.zeros(1)}, file)
    return _with_pickle(file, data)


def _with_pickle(file: Path, data: bytes) -> Path:
    """Replace the pickle in a file of torch.save."""
    with zipfile.ZipFile(file) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, data if name.endswith("data.pkl") else content)
    return file


def zip_bomb(folder: Path) -> Path:
    file = folder / "evil.pth"
    torch.save({"a": torch.zeros(10_000_000)}, file)
    with zipfile.ZipFile(file) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file


def long_header(folder: Path) -> Path:
    file = folder / "evil.safetensors"
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", 300_000_000) + b"{")
        opened.truncate(300_000_000)
    return file


def script(folder: Path) -> Path:
    torch.jit.script(torch.nn.Linear(2, 2)).save(folder / "evil.pth")
    return folder / "evil.pth"


def numpy_file(folder: Path) -> Path:
    np.savez(folder / "evil.npz", a=np.zeros(3))
    return (folder / "evil.npz").rename(folder / "evil.pth")


def directory(folder: Path) -> Path:
    (folder / "evil.pth").mkdir()
    return folder / "evil.pth"


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "evil.pth")
    return folder / "evil.pth"


def loop(folder: Path) -> Path:
    (folder / "evil.pth").symlink_to("evil.pth")
    return folder / "evil.pth"


def device(folder: Path) -> Path:
    (folder / "evil.pth").symlink_to("/dev/zero")
    return folder / "evil.pth"


def empty(folder: Path) -> Path:
    (folder / "evil.safetensors").touch()
    return folder / "evil.safetensors"


def checkpoint_of_a_run(record: Any, state: Any = None) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        content = {"irformer": record, "state_dict": {f"network.{name}": value for name, value in weights().items()}}
        torch.save(content if state is None else content | {"state_dict": state}, folder / "evil.ckpt")
        return folder / "evil.ckpt"

    return write


_SAVE = "${oc.create:{_target_:numpy.savetxt,fname:ran-code,X:[1]}}"
_LOAD = "${oc.create:{_target_:torch.load,f:code.pth,weights_only:false}}"
_IMPORT = "irformer.models.torch.load"

# Name: how the file is written, and what the refusal says.
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    # Records that would run code, or name a class that is not a network or norm.
    "interpolation": (with_model(norm=_SAVE), "norm in its record contains ${oc.create:{_target_:numpy.savetxt"),
    "interpolated load": (with_model(depths=[_LOAD]), "depths[0] in its record contains ${oc.create:{_target_:torch.load"),
    "interpolated key": (with_model(**{"${oc.env:HOME}": 1}), "model in its record contains ${oc.env:HOME}"),
    "interpolated task": (with_record({"model": model(), "task_config": {"a": _SAVE}}), "task_config.a in its record contains ${oc.create"),
    "function": (with_model(_target_="os.system"), "names the class os.system; a file may only name irformer's networks and norms"),
    "nested function": (with_model(depths=[{"_target_": "os.mkdir", "path": PROOF}]), "names the class os.mkdir"),
    "imported module": (with_model(depths=[{"_target_": _IMPORT, "f": "x"}]), f"names the class {_IMPORT}; a file may only name"),
    "imported class": (with_model(norm=norm("irformer.norms.Tensor")), "names the class irformer.norms.Tensor; a file may only name"),
    "imported function": (with_model(norm=norm("irformer.norms.residual")), "names the class irformer.norms.residual"),
    "foreign module": (
        with_model(_target_="antigravity.Network"),
        "trust=[antigravity], --trust antigravity or IRFORMER_TRUST=antigravity",
    ),
    "class of training": (with_model(norm=norm("irformer.training.losses.SSIM")), "names the class irformer.training.losses.SSIM"),
    "target of a wrong type": (with_model(_target_=["irformer.models.SwinIR"]), "_target_=a list: expected the full name of a class"),
    "target of odd text": (with_model(_target_="irformer.models.SwinIR\x1b[2J"), "expected at most 1,000 printable characters"),
    "positional arguments": (with_model(_args_=[1]), "_args_: unknown key; besides _target_, a file may only contain _partial_"),
    "no network": (with_model(_target_="irformer.norms.ILN", dim=8), "unknown key norm: ILN takes dim, eps"),
    # Records that are no plain, finite, small data.
    "constant": (with_record('{"model": {"_target_": "x", "name": "x", "norm": NaN}}'), "model.norm=nan in its record: expected a finite"),
    "huge number": (
        with_record('{"model": {"_target_": "x", "name": "x", "norm": 1e999}}'),
        "model.norm=inf in its record: expected a finite",
    ),
    "many digits": (with_record('{"model": {"depths": [' + 5000 * "9" + "]}}"), "cannot be read; expected JSON"),
    "twice": (with_record('{"model": {"_target_": "a", "_target_": "b"}}'), "_target_ occurs twice in the record"),
    "deep": (with_record('{"model": ' + 100 * '{"a": ' + "1" + 101 * "}"), "nested deeper than 32 levels"),
    "very deep": (with_record('{"model": ' + 100_000 * "["), "cannot be read; expected JSON"),
    "long record": (with_record({"model": {"a": 2_000_000 * "x"}}), "expected at most 1,048,576"),
    "no JSON": (with_record("{]"), "cannot be read; expected JSON with its configuration under model"),
    "a list": (with_record([]), "cannot be read; expected JSON with its configuration under model"),
    "step as text": (with_record({"model": model(), "step": "many"}), "step=many in its record: expected a number of optimizer steps"),
    "task as list": (with_record({"model": model(), "task": ["a"]}), "task=a list in its record: expected the name of a task"),
    "task config as list": (with_record({"model": model(), "task_config": []}), "task_config=a list in its record"),
    "many blocks": (with_model(depths=[100_000]), "depths=[100000]: expected a list of 1 to 64 whole numbers, each from 1 to 64"),
    "more blocks than tensors": (with_model(depths=[64] * 30, num_heads=[2] * 30), "of more than 1,0"),
    "very many blocks": (with_model(depths=[10**12]), "add up to more than 131,072"),
    "many features": (with_model(embed_dim=10**9), "add up to more than 131,072"),
    "features as text": (with_model(embed_dim="8"), "embed_dim='8': expected a whole number from 1 to 16,384"),
    "wide windows": (with_model(window_size=64, depths=[64]), "values in buffers"),
    "many channels": (with_model(in_channels=100_000), "in_channels=100000: expected 1 or 3"),
    "huge ratio": (with_model(mlp_ratio=1e30), "mlp_ratio=1e+30: expected a number above 0, up to 64"),
    "zero range": (with_model(pixel_range=0), "pixel_range=0: expected a number above 0, up to 65,535"),
    "another size": (with_model(embed_dim=16), "do not match the configured SwinIR"),
    "unknown argument": (with_model(hidden=3), "unknown key hidden: SwinIR takes norm, scale"),
    "norm as text": (with_model(norm="ln"), "norm.name=None in its record: expected a name"),
    "record that is no text": (checkpoint_of_a_run(5), "the record of its network is a int; expected JSON text"),
    "state that is no mapping": (checkpoint_of_a_run(json.dumps({"model": model()}), [1]), "state_dict=a list: expected weights by name"),
    "record in a checkpoint": (checkpoint_of_a_run(json.dumps({"model": model(norm=_SAVE)})), "norm in its record contains ${oc.create"),
    # Pickled files.
    "pickled code": (with_weights(lambda state: state.update(extra=RunsCode())), "refused, because reading it would run code ("),
    "TorchScript": (script, "a TorchScript program runs code"),
    "contains itself": (with_weights(contains_itself), "its weights are nested under more than 8 keys"),
    "deeply wrapped": (with_weights(deeply_wrapped), "its weights are nested under more than 8 keys"),
    "tuple bomb": (tuple_bomb, "a tuple of more than 10,000 values"),
    "zip bomb": (zip_bomb, "it unpacks to more bytes than its size"),
    "list": (with_weights(lambda state: list(state)), "expected weights by name, found a list"),
    "meta": (
        with_weights(replaced("conv_first.weight", lambda x: x.to("meta"))),
        "conv_first.weight: a tensor without values (device meta)",
    ),
    "sparse": (with_weights(replaced("conv_first.bias", lambda x: x.to_sparse())), "conv_first.bias: a nested or sparse tensor"),
    "quantized": (
        with_weights(replaced("conv_first.bias", lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8))),
        "conv_first.bias: a quantized tensor",
    ),
    "complex": (with_weights(replaced("conv_first.bias", lambda x: x + 0j)), "conv_first.bias: complex numbers"),
    "whole numbers": (with_weights(replaced("conv_first.bias", lambda x: x.int())), "conv_first.bias torch.int32 instead of torch.float32"),
    "expanded": (
        with_weights(replaced("conv_first.weight", lambda x: x[:1, :1, :1, :1].expand(10**5, 10**4, 3, 3))),
        "expected the file to contain every weight",
    ),
    "number among weights": (with_weights(replaced("conv_first.bias", lambda x: 3)), "conv_first.bias: a int among the weights"),
    "list among weights": (with_weights(replaced("conv_first.bias", lambda x: x.tolist())), "conv_first.bias: a list among the weights"),
    "name that is a number": (with_weights(lambda state: state.update({5: torch.zeros(1)})), "the name of a weight is of type int (5)"),
    "name of many lines": (with_weights(lambda state: state.update({"a\nb" * 999: torch.zeros(1)})), "1 unexpected (a?ba?ba?b"),
    "not finite": (with_weights(not_finite), "conv_first.weight: 3 of 324 values are not finite"),
    "scalar": (with_weights(replaced("conv_first.weight", lambda x: x.sum())), "but their shapes do not fit such a network"),
    "flat": (with_weights(replaced("conv_first.weight", lambda x: x.flatten())), "but their shapes do not fit such a network"),
    "no rows": (with_weights(replaced("conv_first.weight", lambda x: x[:0])), "its names are those of swinir weights"),
    # Files of other networks, whose sizes spandrel reads from names and shapes.
    "far numbers": (
        lambda folder: _compact(folder, {"body.0.weight": "body.2000000000.weight"}),
        "body.2000000000.weight: the number is far beyond its",
    ),
    # What is no file of weights.
    "long header": (long_header, "a header of 300,000,000 bytes"),
    "another archive": (numpy_file, "damaged or not a weights file"),
    "folder": (directory, "no checkpoints/best.safetensors in this folder"),
    "FIFO": (fifo, "is a FIFO; expected a run's folder or a weights file"),
    "device": (device, "is a device; expected a run's folder or a weights file"),
    "link to itself": (loop, "cannot be read (Too many levels of symbolic links)"),
    "empty": (empty, "damaged or not a weights file: it is empty"),
    "no file": (lambda folder: folder / "evil.pth", "no such file"),
    "long name": (lambda folder: folder / f"{300 * 'x'}.pth", "cannot be read (File name too long)"),
}


def _compact(folder: Path, names: dict[str, str]) -> Path:
    from spandrel.architectures.Compact import Compact

    state = Compact(num_in_ch=3, num_out_ch=3, num_feat=4, num_conv=2, upscale=2).state_dict()
    torch.save({names.get(name, name): value for name, value in state.items()}, folder / "evil.pth")
    return folder / "evil.pth"
