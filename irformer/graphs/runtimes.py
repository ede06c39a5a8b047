"""Networks in ONNX files, applied by ONNX Runtime or OpenVINO on the CPU."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from irformer.errors import UserError

Backend = Literal["onnxruntime", "openvino"]
_NO_MEMORY = ("allocat", "bad_alloc", "not enough memory")


class GraphNetwork(nn.Module):
    """A network in an ONNX file, called like the network that it was made of; it computes on the CPU without gradients.

    Args:
        path: the file.
        backend: the runtime.

    Raises:
        UserError: the runtime is not installed, or the file is damaged or was not written by irformer.
    """

    def __init__(self, path: Path, backend: Backend) -> None:
        super().__init__()
        facts = metadata(path)
        try:
            self.scale = int(facts["scale"])
            self.in_channels = int(facts["channels"])
            self.size_multiple = int(facts["size_multiple"])
        except (KeyError, ValueError):
            raise UserError(f"{path}: its metadata lacks scale, channels or size_multiple; expected a file written by export.py") from None
        self._values: type[np.floating] = np.float32 if facts.get("precision") == "fp32" else np.float16
        self._run = (_onnxruntime if backend == "onnxruntime" else _openvino)(path)

    def forward(self, lq: Tensor) -> Tensor:
        """Restore images: [B, in_channels, H, W] in [0, 1] to [B, in_channels, scale*H, scale*W], float32.

        Raises:
            MemoryError: the runtime cannot allocate enough memory.
            RuntimeError: the runtime fails for another reason.
        """
        try:
            out = self._run(np.ascontiguousarray(lq.detach().cpu().numpy(), self._values))
        except Exception as error:  # runtimes raise errors of their own
            if any(words in str(error) for words in _NO_MEMORY):
                raise MemoryError(str(error)) from None
            raise RuntimeError(str(error)) from None
        return torch.from_numpy(out).float()


def metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file.

    Raises:
        UserError: the file cannot be read.
    """
    onnx: Any = required("onnx")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # OSError, or an error of protobuf
        raise UserError(f"{path}: cannot be read as ONNX ({type(error).__name__}); export the checkpoint again") from None
    return {entry.key: entry.value for entry in model.metadata_props}


def required(package: str) -> Any:
    """Import a package of an extra.

    Raises:
        UserError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        extra = "openvino" if package == "openvino" else "onnx"
        raise UserError(f"{package} cannot be imported ({error}): pip install 'irformer[{extra}]'") from None


def _onnxruntime(path: Path) -> Callable[[NDArray], NDArray]:
    onnxruntime: Any = required("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_mem_pattern = False  # plans memory for one size of images
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _openvino(path: Path) -> Callable[[NDArray], NDArray]:
    openvino: Any = required("openvino")
    # By default, it computes in bfloat16 on processors that support it.
    settings: Mapping[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda images: np.array(compiled(images)[0])
