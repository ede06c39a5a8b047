"""How training steps call the network: compiled or not, and in which memory format.

Validation, the probe and the benchmark call the network itself. Their images have many sizes, which would be compiled one by one, and
they are to give the same numbers whether training is compiled or not. The network has the same class and the same names of its weights,
so a run can be resumed with other settings.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from irformer.errors import UserError
from irformer.models.blocks import running_statistics
from irformer.models.interface import groups_of, is_channels_last
from irformer.schema.phrases import show

# A network is compiled again in a few other cases than a new patch size, such as the first step in another precision.
_SPARE_COMPILATIONS = 8


@dataclasses.dataclass(frozen=True)
class CallSettings:
    """The keys of `trainer` that are not arguments of `lightning.Trainer`.

    Args:
        compile: false, true, or a mode of torch.compile.
        channels_last: memory format of the patches.
    """

    compile: bool | str = False
    channels_last: bool = False

    @property
    def mode(self) -> str | None:
        """The mode of torch.compile, or None."""
        if isinstance(self.compile, str):
            return self.compile
        return "default" if self.compile else None


def split_trainer(trainer: Mapping[str, Any]) -> tuple[CallSettings, dict[str, Any]]:
    """Split the `trainer` part of a configuration into irformer's own settings and the arguments of `lightning.Trainer`."""
    own = {field.name for field in dataclasses.fields(CallSettings)}
    settings = CallSettings(**{name: value for name, value in trainer.items() if name in own})
    return settings, {name: value for name, value in trainer.items() if name not in own}


class NetworkCall:
    """Calls the network in a training step.

    The network is compiled at the first call, in the process that trains, and again for each new patch size: the code of a step depends
    only on its size, not on the sizes before it, so that a resumed run computes the same bits.

    Args:
        mode: mode of torch.compile; None does not compile.
        channels_last: convert patches to the memory format in which the channels of a pixel are adjacent. Convolutions use the format of
            their input, so the weights keep theirs, and checkpoints are the same.
        sizes: number of patch sizes in the run.
    """

    def __init__(self, mode: str | None = None, channels_last: bool = False, sizes: int = 1) -> None:
        self.mode = mode
        self.channels_last = channels_last
        self.sizes = sizes
        self._compiled: Callable[[Tensor], Tensor] | None = None

    def __call__(self, network: nn.Module, lq: Tensor) -> Tensor:
        """Restore a batch [B, C, H, W].

        Raises:
            UserError: the network cannot be compiled.
        """
        if self.channels_last:
            lq = lq.contiguous(memory_format=torch.channels_last)
        if self.mode is None:
            return network(lq)
        if self._compiled is None:
            self._compiled = self._compile(network)
        try:
            return self._compiled(lq)
        except torch._dynamo.exc.TorchDynamoException as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            reason = " ".join(lines[: 1 + lines[0].endswith(":")])  # "backend='inductor' raised:", and the error itself
            raise UserError(f"trainer.compile: torch.compile fails on this network ({reason}); use trainer.compile=false") from error

    def _compile(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        dynamo = torch._dynamo.config
        # By default, PyTorch stops compiling after a few sizes and runs the network uncompiled from then on.
        dynamo.recompile_limit = max(dynamo.recompile_limit, self.sizes + _SPARE_COMPILATIONS)
        # By default, a forward hook that a callback adds or removes after the first step has no effect.
        dynamo.skip_nnmodule_hook_guards = False
        if getattr(network, "checkpointing", False):
            dynamo.optimize_ddp = False  # DDP's buckets cannot split groups that are recomputed
        return torch.compile(network, mode=self.mode, dynamic=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}  # compiled code can be neither pickled nor copied


def build_call(
    settings: CallSettings, network: nn.Module, device: torch.device, sizes: int, deterministic: bool
) -> tuple[NetworkCall, dict[str, str]]:
    """Build the call of the network in training steps.

    Args:
        settings: what the configuration asks for.
        network: the network.
        device: device that trains.
        sizes: number of patch sizes in the run.
        deterministic: whether the run must use deterministic algorithms.

    Returns:
        The call, and a line by name for each setting that was changed from its default.

    Raises:
        UserError: the mode is not deterministic, or the network cannot be compiled.
    """
    notes = {}
    mode = settings.mode
    if mode is not None:
        if deterministic and mode.startswith("max-autotune"):
            raise UserError(
                f"trainer.compile={mode} selects kernels by measuring their time, so its results differ from run to run: use "
                "trainer.compile=true with trainer.deterministic=true"
            )
        if getattr(network, "checkpointing", False) and any(running_statistics(group) for group in groups_of(network).values()):
            raise UserError(
                "trainer.compile with model.checkpointing=true: torch.compile cannot recompute norms with running statistics (norm=batch); "
                "use only one of the two"
            )
        obstacle = _obstacle(device)
        if obstacle is None:
            notes["compile"] = f"training steps, mode {mode}; the first step of each patch size takes up to minutes"
        else:
            mode, notes["compile"] = None, f"trainer.compile={show(settings.compile)} has no effect: {obstacle}"
    if settings.channels_last:
        notes["channels_last"] = (
            f"trainer.channels_last=true has no effect: the features of {type(network).__name__} are channels-last anyway"
            if is_channels_last(network)
            else "patches are channels-last in memory"
        )
    return NetworkCall(mode, settings.channels_last and not is_channels_last(network), sizes), notes


def _obstacle(device: torch.device) -> str | None:
    """Return why torch.compile does not work for a device on this machine, or None if it does."""
    if device.type not in ("cpu", "cuda"):
        return f"irformer compiles on CUDA and on the CPU, not on {device.type}"
    # Imported here, because this takes seconds.
    from torch._dynamo import is_dynamo_supported
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch.utils._triton import has_triton

    if not is_dynamo_supported():
        return "PyTorch does not support it in this version of Python"
    if device.type == "cuda":
        return None if has_triton() else "it needs Triton, and a GPU that Triton supports"
    try:
        get_cpp_compiler()
    except RuntimeError:
        return "on the CPU it needs a C++ compiler, and none was found; install one, or name it in the variable CXX"
    return None
