"""Weights files that were changed at random: each gives a network that works or one line, soon."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import model, weights
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from official import official
from safetensors.torch import load_file, save_file

from irformer import load_network
from irformer.errors import UserError
from irformer.weights.checkpoints import network_record

KINDS = ("ours.safetensors", "official.safetensors", "official.pth", "run.ckpt")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    record = network_record(model(), "sr_x2", 1, {"psnr_y": 30.0}, {"name": "sr_x2"})
    state = {name: value.clone() for name, value in official("swinir_light_x4").state_dict().items()}
    save_file(weights(), folder / KINDS[0], {"irformer": record})
    save_file(state, folder / KINDS[1])
    torch.save({"params": state}, folder / KINDS[2])
    torch.save({"irformer": record, "state_dict": {f"network.{name}": x for name, x in weights().items()}}, folder / KINDS[3])
    return {name: (folder / name).read_bytes() for name in KINDS}


def outcome(file: Path) -> str:
    """Whether a file is refused in one line or handled; anything else fails."""
    started = time.monotonic()
    try:
        network = load_network(file)
    except UserError as error:
        message = str(error)
        assert str(file) in message
        assert message.isprintable(), message
        assert len(message) < 1200
        assert "weights_only=" not in message
        result = "refused"
    else:
        with torch.no_grad():
            found = network(torch.rand(1, network.in_channels, 16, 16))
        assert found.shape == (1, network.in_channels, 16 * network.scale, 16 * network.scale)
        result = "handled"
    assert time.monotonic() - started < 20
    return result


@st.composite
def changes_of_bytes(draw: st.DrawFn, size: int) -> list[tuple[str, int, bytes]]:
    """Flips, cuts and insertions; half of them near the front, where files say what they hold."""
    places = st.one_of(st.integers(0, min(size, 3000)), st.integers(0, size), st.integers(max(0, size - 3000), size))
    change = st.tuples(st.sampled_from(["flip", "cut", "insert"]), places, st.binary(min_size=1, max_size=8))
    return draw(st.lists(change, min_size=1, max_size=3))


def with_changed_bytes(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, content in changes:
        if kind == "flip":
            data = (
                data[:place]
                + bytes(a ^ b for a, b in zip(data[place : place + len(content)], content, strict=False))
                + data[place + len(content) :]
            )
        elif kind == "cut":
            data = data[:place]
        else:
            data = data[:place] + content + data[place:]
    return data


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-2, 20),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["${norm}", "${oc.env:HOME}", "${oc.create:{a:1}}", "os.system", "irformer.models.HAT", "irformer.norms.torch.load", "???"]
    ),
    st.lists(st.integers(-1, 10**12), max_size=4),
    st.dictionaries(
        st.sampled_from(["_target_", "_partial_", "_args_", "name", "a"]), st.sampled_from(["os.system", True, 1, []]), max_size=2
    ),
)


def places(node: Any, way: tuple = ()) -> list[tuple]:
    """Every key and index in a record."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in items for place in [(*way, key), *places(value, (*way, key))]]


RECORD = json.loads(network_record(model(), "sr_x2", 1, {"psnr_y": 30.0}, {"name": "sr_x2"}))


def with_changed_record(changes: list[tuple[tuple, Any]]) -> str:
    record = json.loads(json.dumps(RECORD))
    for way, value in changes:
        try:
            node = record
            for part in way[:-1]:
                node = node[part]
            node[way[-1]] = value
        except (KeyError, IndexError, TypeError):  # an earlier change has replaced what lies above
            continue
    return json.dumps(record)


def with_changed_tensors(state: dict[str, torch.Tensor], changes: list[tuple[int, str]]) -> dict[str, Any]:
    state = dict(state)
    for number, kind in changes:
        name = list(state)[number % len(state)]
        value = state.pop(name)
        if kind == "rename":
            state[name.replace("0", "7", 1) + ".x" * ("0" not in name)] = value
        elif kind == "another number":
            state[name.replace("0", "100", 1)] = value
        elif kind == "flatten":
            state[name] = value.flatten()
        elif kind == "scalar":
            state[name] = value.float().sum()
        elif kind == "empty":
            state[name] = value.flatten()[:0]
        elif kind == "longer":
            state[name] = torch.cat([value.flatten(), value.flatten()])
        elif kind == "turned":
            state[name] = value.T.contiguous() if value.dim() == 2 else value.unsqueeze(0)
        elif kind == "half":
            state[name] = value.half()
        elif kind == "whole":
            state[name] = value.to(torch.int64)
        elif kind == "bool":
            state[name] = value > 0
        elif kind == "not a number":
            state[name] = value.float() * float("nan")
    return state


KINDS_OF_CHANGE = (
    *("rename", "another number", "flatten", "scalar", "empty", "longer", "turned"),
    *("half", "whole", "bool", "not a number", "drop"),
)


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, str, Any]:
    name = draw(st.sampled_from(KINDS))
    what = draw(st.sampled_from(["bytes", "record", "tensors"]))
    if what == "bytes":
        return name, what, draw(changes_of_bytes(80_000))
    if what == "record":
        return name, what, draw(st.lists(st.tuples(st.sampled_from(places(RECORD)), ODD_VALUES), min_size=1, max_size=2))
    return name, what, draw(st.lists(st.tuples(st.integers(0, 200), st.sampled_from(KINDS_OF_CHANGE)), min_size=1, max_size=3))


def write_mutation(folder: Path, files: dict[str, bytes], mutation: tuple[str, str, Any]) -> Path:
    name, what, changes = mutation
    file = folder / name
    if what == "bytes":
        file.write_bytes(with_changed_bytes(files[name], changes))
    elif what == "record":
        record = with_changed_record(changes)
        file = folder / ("run.ckpt" if name.endswith((".ckpt", ".pth")) else "ours.safetensors")
        if file.suffix == ".ckpt":
            torch.save({"irformer": record, "state_dict": {f"network.{key}": x for key, x in weights().items()}}, file)
        else:
            save_file(weights(), file, {"irformer": record})
    else:
        file = folder / ("official.pth" if name.endswith((".ckpt", ".pth")) else "official.safetensors")
        whole = folder / "whole.safetensors"
        whole.write_bytes(files["official.safetensors"])
        state = with_changed_tensors(load_file(whole), changes)
        if file.suffix == ".pth":
            torch.save(state, file)
        else:
            save_file({key: value.clone() for key, value in state.items()}, file)
    return file


def check_mutations(examples: int, folder: Path, files: dict[str, bytes], attempts: Any) -> None:
    seen = {"refused": 0, "handled": 0}

    # Shrinking a failure would build hundreds of networks more.
    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations())
    def run(mutation: tuple[str, str, Any]) -> None:
        result = outcome(write_mutation(folder, files, mutation))
        seen[result] += 1
        getattr(attempts, result)("weights files")

    run()
    assert seen["refused"] > 0.3 * examples
    assert seen["handled"] > 0


def test_a_changed_file_gives_a_network_or_one_line(tmp_path, files, attempts):
    check_mutations(40, tmp_path, files, attempts)


@pytest.mark.slow
def test_many_changed_files_give_a_network_or_one_line(tmp_path, files, attempts):
    check_mutations(600, tmp_path, files, attempts)
