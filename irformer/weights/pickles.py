"""Pickled files (.pth, .pt, .ckpt) read without running code, and without being held up by what a crafted file can contain."""

import io
import os
import pickle
import pickletools
import re
import stat
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from irformer.core.trust import shortened
from irformer.errors import UserError

_REMEDY = "Save them alone, torch.save(network.state_dict(), FILE), or as .safetensors"
# Values within one tuple, tuples in it included. A state dict holds shapes and strides; PyTorch's own records stay below 100.
_TUPLE = 10_000
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))


def require_file(path: Path, expected: str) -> None:
    """Raise a UserError in one line where a path is no regular file that can be read.

    Args:
        path: of the file.
        expected: what stands there otherwise, for the message.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # a name that is too long, or with a null byte
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "no such file" if missing else f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise UserError(f"{shortened(str(path), 300)}: {reason}; expected {expected}") from None
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no regular file")
        raise UserError(f"{path}: is {kind}; expected {expected}")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: cannot be read (Permission denied); expected {expected}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: damaged or no file of weights: it is empty")


def read_pickled(path: Path, mmap: bool = False) -> Any:
    """Read a file that torch.save has written, tensors and plain values alone.

    Args:
        path: of the file.
        mmap: leave the tensors in the file until they are used.

    Raises:
        UserError: reading it would run code, it is damaged, or it takes far more memory than it has bytes.
    """
    try:
        _require_bounded(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of the format and TorchScript: the errors below say what matters
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted is None:
            raise UserError(f"{path}: damaged or no file of weights") from None
        raise UserError(
            f"{path}: refused, since reading it would run code ({shortened(wanted[1])}); only weights are read here. {_REMEDY}"
        ) from None
    except Exception as error:  # a damaged archive ends in whatever the bytes lead to
        if "TorchScript" in str(error):
            raise UserError(f"{path}: refused, since a TorchScript program runs code; only weights are read here") from None
        reason = (str(error).splitlines() or [""])[0].partition(". This")[0]
        if not reason or "weights_only" in reason:
            reason = type(error).__name__
        raise UserError(f"{path}: damaged or no file of weights: {shortened(reason, 200)}") from None


def _require_bounded(path: Path) -> None:
    """Refuse archives that unpack to more than they hold, and pickles whose tuples take exponential time to compare."""
    if not zipfile.is_zipfile(path):  # the format before PyTorch 1.6: five pickles, then the bytes of the tensors
        with path.open("rb") as file:
            for _ in range(5):
                _require_small_tuples(path, file)
        return
    with zipfile.ZipFile(path) as archive:
        if unpacks_to_more(path, archive):
            raise UserError(f"{path}: refused, since it unpacks to more bytes than it has; torch.save does not compress. {_REMEDY}")
        for part in archive.infolist():
            if part.filename.endswith("data.pkl"):
                _require_small_tuples(path, io.BytesIO(archive.read(part)))


def unpacks_to_more(path: Path, archive: zipfile.ZipFile) -> bool:
    """Whether the parts of an archive together are larger than the archive."""
    return sum(part.file_size for part in archive.infolist()) > path.stat().st_size


def _require_small_tuples(path: Path, file: Any) -> None:
    """Refuse a pickle with a tuple of too many values.

    A tuple may hold another one twice, which takes one reference more but twice the time to hash: forty of them take for ever. The
    opcodes are followed without building anything; what stands on the stack is the number of values in it.
    """
    stack: list[int | None] = []  # None is a mark
    memo: dict[Any, int] = {}
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1] or 1
            continue
        if name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo.get(argument, 1))
            continue
        if name == "MARK":
            stack.append(None)
            continue
        values = 1
        if pickletools.markobject in opcode.stack_before:
            while (top := stack.pop()) is not None:
                values += top
            taken = opcode.stack_before.index(pickletools.markobject)
        else:
            taken = len(opcode.stack_before)
        for _ in range(taken):
            values += stack.pop() or 0
        # What is no tuple either cannot be hashed or is hashed by its identity; what a function makes may hold its arguments.
        kept = values if name.startswith("TUPLE") or name in ("REDUCE", "NEWOBJ", "FROZENSET") else 1
        if kept > _TUPLE:
            raise UserError(f"{path}: refused, since it holds a tuple of more than {_TUPLE:,} values, which no file of weights has")
        stack += [kept] * len(opcode.stack_after)
