"""Read pickled files (.pth, .pt, .ckpt) without running code, and refuse crafted files that exhaust memory or time."""

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

_REMEDY = "Save the weights alone, torch.save(network.state_dict(), FILE), or as .safetensors"
# Values in one tuple, including nested tuples. The tuples of a state dict are shapes and strides; PyTorch's own stay below 100 values.
_MAX_TUPLE = 10_000
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))


def require_file(path: Path, expected: str) -> None:
    """Check that a path is a readable, non-empty regular file.

    Args:
        path: the file.
        expected: description of the expected file, for the message.

    Raises:
        UserError: it is not.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: the name contains a null byte
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "no such file" if missing else f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise UserError(f"{shortened(str(path), 300)}: {reason}; expected {expected}") from None
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "not a regular file")
        raise UserError(f"{path}: is {kind}; expected {expected}")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: cannot be read (Permission denied); expected {expected}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: damaged or not a weights file: it is empty")


def read_pickled(path: Path, mmap: bool = False) -> Any:
    """Read a file written by torch.save that contains only tensors and plain values.

    Args:
        path: the file.
        mmap: memory-map the tensors instead of loading them.

    Raises:
        UserError: reading it would run code, it is damaged, or it takes far more memory than its size.
    """
    try:
        _require_bounded(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old formats and TorchScript: the errors below report what matters
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted is None:
            raise UserError(f"{path}: damaged or not a weights file") from None
        raise UserError(
            f"{path}: refused, because reading it would run code ({shortened(wanted[1])}); expected only weights. {_REMEDY}"
        ) from None
    except Exception as error:  # a damaged archive can raise anything
        if "TorchScript" in str(error):
            raise UserError(f"{path}: refused, because a TorchScript program runs code; expected only weights") from None
        reason = (str(error).splitlines() or [""])[0].partition(". This")[0]
        if not reason or "weights_only" in reason:
            reason = type(error).__name__
        raise UserError(f"{path}: damaged or not a weights file: {shortened(reason, 200)}") from None


def _require_bounded(path: Path) -> None:
    """Refuse archives that unpack to more bytes than their size, and pickles with tuples that take exponential time to hash."""
    if not zipfile.is_zipfile(path):  # the format before PyTorch 1.6: five pickles, then the tensors
        with path.open("rb") as file:
            for _ in range(5):
                _require_small_tuples(path, file)
        return
    with zipfile.ZipFile(path) as archive:
        if unpacks_to_more(path, archive):
            raise UserError(f"{path}: refused, because it unpacks to more bytes than its size; torch.save does not compress. {_REMEDY}")
        for part in archive.infolist():
            if part.filename.endswith("data.pkl"):
                _require_small_tuples(path, io.BytesIO(archive.read(part)))


def unpacks_to_more(path: Path, archive: zipfile.ZipFile) -> bool:
    """Return whether the members of an archive are together larger than the archive."""
    return sum(part.file_size for part in archive.infolist()) > path.stat().st_size


def _require_small_tuples(path: Path, file: Any) -> None:
    """Refuse a pickle with a tuple of too many values.

    A tuple may contain another one twice, which adds one reference to the file but doubles the time to hash it: forty levels never finish.
    The opcodes are simulated without building objects; the stack holds the number of values in each object.
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
        # Other objects cannot be hashed or are hashed by identity, but the result of a function call may contain its arguments.
        kept = values if name.startswith("TUPLE") or name in ("REDUCE", "NEWOBJ", "FROZENSET") else 1
        if kept > _MAX_TUPLE:
            raise UserError(f"{path}: refused, because it contains a tuple of more than {_MAX_TUPLE:,} values; weights files have none")
        stack += [kept] * len(opcode.stack_after)
