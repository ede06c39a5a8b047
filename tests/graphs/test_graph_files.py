"""ONNX and .pt2 files of networks: conventions, agreement at any size, and what is refused."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from official import small
from torch import Tensor, nn

import irformer
from irformer.errors import UserError
from irformer.graphs import graph_files
from irformer.graphs.agreement import Agreement, Size, agreements, misses, photo
from irformer.graphs.graph_files import Written, write_onnx, write_program
from irformer.graphs.runtimes import GraphNetwork, metadata
from irformer.precision import scale_stream

# For networks with windows of 8 pixels: smaller than a window, and a batch with odd sides.
QUICK = (Size(1, 5, 7), Size(2, 19, 26))
NAMES = ("swinir", "hat", "drct", "restormer")
NORMS = sorted(path.stem for path in (Path(__file__).parents[2] / "configs" / "norm").glob("*.yaml"))
TENSORS = onnx.TensorProto
STATISTICS = {"ReduceMean", "ReduceSum", "ReduceL2", "Softmax", "LayerNormalization", "GlobalAveragePool"}


class Exported(NamedTuple):
    network: nn.Module
    path: Path
    written: Written


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Exported:
    network = small("swinir", "iln", scale=2, depths=[2], num_heads=[2])
    path = tmp_path_factory.mktemp("graphs") / "a.onnx"
    return Exported(network, path, write_onnx(network, path, {"license": "Apache-2.0", "norm": "iln"}, sizes=QUICK))


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> Exported:
    network = small("swinir", "iln", scale=1, depths=[1], num_heads=[2])
    path = tmp_path_factory.mktemp("graphs") / "half.onnx"
    return Exported(network, path, write_onnx(network, path, {}, half=True, sizes=QUICK))


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Exported:
    network = small("hat", "iln", scale=2, depths=[1], num_heads=[2])
    path = tmp_path_factory.mktemp("graphs") / "a.pt2"
    return Exported(network, path, write_program(network, path, {"norm": "iln"}, sizes=QUICK))


def typed(path: Path) -> tuple[onnx.ModelProto, dict[str, int]]:
    """A model and the types of all its values."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.input, *graph.output, *graph.value_info]}
    return model, types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def require_conventions(path: Path, scale: int, half: bool) -> None:
    """What chaiNNer and other programs read: the first input and output, static channels, the type."""
    graph = onnx.load(path).graph
    assert [value.name for value in graph.input] == ["input"]
    assert [value.name for value in graph.output] == ["output"]
    for value in (graph.input[0], graph.output[0]):
        batch, channels, height, width = value.type.tensor_type.shape.dim
        assert channels.dim_value == 3
        assert all(axis.dim_param and not axis.dim_value for axis in (batch, height, width))
        assert value.type.tensor_type.elem_type == (TENSORS.FLOAT16 if half else TENSORS.FLOAT)
    assert [axis.dim_param for axis in graph.input[0].type.tensor_type.shape.dim] == ["batch", "", "height", "width"]
    names = [axis.dim_param for axis in graph.output[0].type.tensor_type.shape.dim]
    assert names == ["batch", "", "height", "width"] if scale == 1 else ["batch", "", "scaled_height", "scaled_width"]


def test_a_file_has_one_input_and_one_output_with_static_channels(exported, half):
    require_conventions(exported.path, 2, half=False)
    require_conventions(half.path, 1, half=True)
    onnx.checker.check_model(onnx.load(exported.path), full_check=True)


def test_a_file_says_what_it_is(exported, half):
    facts = metadata(exported.path)
    assert {"scale": "2", "channels": "3", "norm": "iln", "license": "Apache-2.0", "precision": "fp32"}.items() <= facts.items()
    assert metadata(half.path)["precision"] == half.written.precision == "fp16"
    assert onnx.load(exported.path).opset_import[0].version == graph_files.OPSET


def test_a_file_names_no_folder_of_the_machine(exported, program):
    for found in (exported, program):
        assert str(Path(irformer.__file__).parent).encode() not in found.path.read_bytes()
        assert b"site-packages" not in found.path.read_bytes()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("size", [(1, 8, 8), (3, 1, 1), (1, 3, 30), (2, 40, 17)])
def test_a_file_restores_images_of_any_size(exported, backend, size):
    restored = GraphNetwork(exported.path, backend)
    images = photo(Size(*size), 3)
    with torch.no_grad():
        torch.testing.assert_close(restored(images), exported.network(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("Failed to allocate memory for requested buffer of size 1048576", MemoryError),
        ("std::bad_alloc", MemoryError),
        ("Non-zero status code returned while running Conv node", RuntimeError),
    ],
)
def test_a_runtime_that_lacks_memory_says_so_as_pytorch_does(exported, message, error, monkeypatch):
    """Then restore.py halves its tiles."""

    def fail(_images: np.ndarray) -> np.ndarray:
        raise Exception(message)

    restored = GraphNetwork(exported.path, "onnxruntime")
    monkeypatch.setattr(restored, "_run", fail)
    with pytest.raises(error, match=message):
        restored(photo(Size(1, 8, 8), 3))


def test_a_process_without_torch_applies_a_file(exported, tmp_path):
    code = """
import sys
sys.modules["torch"] = sys.modules["irformer"] = None  # importing them fails
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
numpy.save("out.npy", session.run(None, {"input": numpy.load("in.npy")})[0])
"""
    images = photo(Size(1, 21, 34), 3)
    np.save(tmp_path / "in.npy", images.numpy())
    subprocess.run([sys.executable, "-c", code, str(exported.path)], cwd=tmp_path, check=True)
    with torch.no_grad():
        expected = exported.network(images)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "out.npy")), expected, rtol=0, atol=1e-5)


def test_statistics_and_softmax_of_a_float16_file_are_float32(half):
    model, types = typed(half.path)
    operators = [node for node in model.graph.node if node.op_type in STATISTICS]
    assert {"ReduceMean", "Softmax"} <= {node.op_type for node in operators}
    assert {types[node.input[0]] for node in operators} == {TENSORS.FLOAT}
    assert TENSORS.FLOAT16 in {types[node.input[0]] for node in model.graph.node if node.op_type == "Conv"}


@pytest.mark.slow
def test_the_residual_stream_stays_float32_if_float16_overflows(tmp_path):
    """LayerNorm does not limit its input: the network is the same with a stream beyond the range of float16."""
    network = small("swinir", "ln", scale=1)
    assert write_onnx(network, tmp_path / "a.onnx", {}, half=True, sizes=QUICK).precision == "fp16"
    written = write_onnx(scale_stream(network, 2.0**20), tmp_path / "b.onnx", {}, half=True, sizes=QUICK)
    assert written.precision == metadata(tmp_path / "b.onnx")["precision"] == "fp16_safe"
    require_conventions(tmp_path / "b.onnx", 1, half=True)


def test_a_program_is_reloaded_for_any_size(program):
    found = {"metadata.json": ""}
    restored = torch.export.load(program.path, extra_files=found).module()
    assert {"norm": "iln", "scale": "2", "precision": "fp32"}.items() <= json.loads(found["metadata.json"]).items()
    images = photo(Size(3, 9, 31), 3)
    with torch.no_grad():
        torch.testing.assert_close(restored(images), program.network(images), rtol=0, atol=1e-5)


class Changed(nn.Module):
    """A network that computes something else when it is exported."""

    scale, in_channels = 1, 3

    def forward(self, lq: Tensor) -> Tensor:
        return lq * 1.001 if torch.compiler.is_exporting() else lq * 1.0


class Branching(nn.Module):
    """A network whose operations depend on pixel values."""

    scale, in_channels = 1, 3

    def forward(self, lq: Tensor) -> Tensor:
        return lq if lq.mean() > 0.5 else 1 - lq


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        (Changed(), "a.onnx", r"a\.onnx: not written: the graph differs from the network \(1\.0e-03 at 7x5\), expected at most 1e-04"),
        (Changed(), "a.pt2", r"a\.pt2: not written: the graph differs .*, expected at most 1e-04 relative"),
        (Branching(), "a.onnx", r"Branching cannot be traced for images of any size \(.*\); expected a network whose operations"),
        (Changed(), "a.pt", r"a\.pt: expected a file name ending in \.onnx"),
    ],
)
def test_a_file_that_is_not_the_network_is_refused(network, name, message, tmp_path):
    write = write_program if name.endswith("pt2") else write_onnx
    with pytest.raises(UserError, match=message) as refusal:
        write(network, tmp_path / name, {}, sizes=QUICK)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_agreement_is_measured_by_the_largest_difference():
    network = nn.Identity()
    (found,) = agreements(lambda images: images + 0.01 * (images == images.max()), network, 3, [Size(1, 16, 16)])
    assert found.relative == pytest.approx(0.01 / float(photo(found.size, 3).max()), rel=1e-3)
    assert found.decibels > 50
    assert misses(found, half=False)
    assert not misses(found, half=True)
    (lost,) = agreements(lambda images: images * float("nan"), network, 3, [Size(1, 16, 16)])
    assert misses(lost, half=False)
    assert misses(lost, half=True)
    assert not misses(Agreement(found.size, 0.0, float("inf")), half=True)


def test_photos_of_a_batch_differ():
    images = photo(Size(2, 600, 700), 1)
    assert images.shape == (2, 1, 600, 700)
    assert not torch.equal(images[0], images[1])
    assert images.std() > 0.1


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_foreign_file_is_refused(backend, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"a\.onnx: cannot be read as ONNX"):
        GraphNetwork(tmp_path / "a.onnx", backend)
    value = onnx.helper.make_tensor_value_info("x", TENSORS.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "b.onnx")
    with pytest.raises(UserError, match=r"b\.onnx: its metadata lacks scale"):
        GraphNetwork(tmp_path / "b.onnx", backend)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", NAMES)
def test_every_network_with_every_norm_is_exported(name, norm, tmp_path):
    network = small(name, norm, scale=None if name == "restormer" else 2)
    for half in (False, True):
        path = tmp_path / f"{half}.onnx"
        write_onnx(network, path, {}, half=half, sizes=QUICK)
        require_conventions(path, network.scale, half)
        model, types = typed(path)
        assert {types[node.input[0]] for node in model.graph.node if node.op_type in STATISTICS} <= {TENSORS.FLOAT}
        assert not {node.op_type for node in model.graph.node} & {"SpaceToDepth", "PixelUnshuffle"}
    images = photo(Size(1, 30, 41), 3)
    with torch.no_grad():
        torch.testing.assert_close(GraphNetwork(tmp_path / "False.onnx", "openvino")(images), network(images), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["ln", "iln"])
@pytest.mark.parametrize("name", NAMES)
def test_programs_of_every_network_are_reloaded(name, norm, tmp_path):
    network = small(name, norm)
    written = write_program(network, tmp_path / "a.pt2", {}, sizes=QUICK)
    assert [found.size for found in written.agreements] == list(QUICK)
    assert write_program(network, tmp_path / "half.pt2", {}, half=True, sizes=QUICK).precision == "fp16"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_statistics_of_a_large_image_agree(name, tmp_path):
    written = write_onnx(small(name, "iln"), tmp_path / "a.onnx", {}, sizes=[Size(1, 512, 512)])
    assert written.agreements[0].decibels >= 90


@pytest.mark.slow
@pytest.mark.parametrize("opset", [*graph_files.OPSETS])
def test_every_version_of_the_operators(opset, tmp_path):
    write_onnx(small("restormer", "ln"), tmp_path / "a.onnx", {}, opset=opset, sizes=QUICK)
    assert onnx.load(tmp_path / "a.onnx").opset_import[0].version == opset


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("swinir", {"scale": 4, "upsampler": "nearest+conv", "resi_connection": "3conv"}),
        ("swinir", {"scale": 1, "window_size": 7, "pixel_range": 255.0, "in_channels": 1}),
        ("hat", {"scale": 3, "overlap_ratio": 0.25}),
        ("restormer", {"scale": 2, "bias": True}),
        ("drct", {"scale": 4, "window_size": 16}),
    ],
)
def test_every_upsampler_and_window(name, overrides, tmp_path):
    network = small(name, "ln", **overrides)
    assert all(found.decibels > 90 for found in write_onnx(network, tmp_path / "a.onnx", {}, sizes=QUICK).agreements)
    buffer = io.BytesIO((tmp_path / "a.onnx").read_bytes())
    assert onnx.load(buffer).graph.input[0].type.tensor_type.shape.dim[1].dim_value == network.in_channels
