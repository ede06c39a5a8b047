"""The provenance of a run: command line, code, packages and machine, with one entry per start."""

import json
import os
import platform
import shlex
import signal
import socket
import subprocess
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from irformer.core.files import write_atomically
from irformer.core.folders import CONFIGS, PACKAGE
from irformer.core.version import __version__

PROVENANCE = Path("provenance.json")

# Packages whose version can change results, by their distribution names.
_PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "hydra-core",
    "omegaconf",
    "timm",
    "numpy",
    "scikit-image",
    "opencv-python",
    "safetensors",
    "pydantic",
)
_GIT_SECONDS = 5.0


def start_entry(argv: Sequence[str], step: int, devices: Sequence[str]) -> dict[str, Any]:
    """Describe one start of a run. Environment variables are left out because they may contain secrets.

    Args:
        argv: the command line, as in `sys.argv`.
        step: the step that the run was resumed from, 0 for a new run.
        devices: device names, one per process.

    Returns:
        Plain values: `started` (local time with UTC offset), `command`, `folder` (the working directory), `from_step`, `host`,
        `platform`, `devices`, `python`, `irformer` (its version), `code` (`commit` and `dirty`, or None outside a git checkout),
        `packages` (versions by name, None if not installed).
    """
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(argv),
        "folder": str(Path.cwd()),
        "from_step": step,
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "devices": list(devices),
        "python": platform.python_version(),
        "irformer": __version__,
        "code": git_state([PACKAGE, CONFIGS]),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def add_entry(file: Path, entry: dict[str, Any]) -> None:
    """Append an entry to provenance.json; a damaged file is kept under another name.

    Args:
        file: a file that contains `{"starts": [...]}`, created if missing.
        entry: see `start_entry`.
    """
    starts: list[Any] = []
    if file.exists():
        try:
            starts = list(json.loads(file.read_text(encoding="utf-8"))["starts"])
        except (ValueError, KeyError, TypeError):
            number = next(n for n in range(1, 1000) if not file.with_suffix(f".damaged{n}").exists())
            file.replace(file.with_suffix(f".damaged{number}"))
    text = json.dumps({"starts": [*starts, entry]}, indent=1) + "\n"
    write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def cpu_name() -> str:
    """Return the model name of the CPU, from /proc/cpuinfo if available."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())


def git_state(paths: Sequence[Path], seconds: float = _GIT_SECONDS) -> dict[str, Any] | None:
    """Return the git commit of some files and whether they differ from it, without writing anything or running hooks.

    Args:
        paths: files or folders of one checkout.
        seconds: timeout of each git command.

    Returns:
        `{"commit": ..., "dirty": ...}`; None without git, outside a checkout, if git does not track the first path (as in a virtual
        environment inside another checkout), or after the timeout.
    """
    names = [str(path) for path in paths]
    tracked = _git(paths[0], ["ls-files", "--", names[0]], seconds)
    commit = _git(paths[0], ["rev-parse", "--verify", "HEAD"], seconds) if tracked else None
    changes = _git(paths[0], ["status", "--porcelain", "--ignore-submodules", "--", *names], seconds) if commit else None
    if not commit or changes is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def _git(folder: Path, words: Sequence[str], seconds: float) -> str | None:
    # git status runs the file system monitor that the git configuration names, and a hook if it refreshes the index.
    options = ["-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "--no-optional-locks"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        process = subprocess.Popen(
            ["git", *options, "-C", str(folder), *words],
            env={**environment, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError:
        return None
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)  # with its children, which may keep the pipe open
        process.communicate()
        return None
    return output if process.returncode == 0 else None


def _version(package: str) -> str | None:
    for name in (package, f"{package}-headless"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
