"""Where a run comes from: command line, code, packages and machine, one entry for each time that it was started."""

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

import irformer
from irformer.core.files import write_atomically
from irformer.core.folders import CONFIGS

PROVENANCE = Path("provenance.json")

# Those whose version can change a number, by the names under which they are installed.
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
    """What is to be known of one start of a run. Environment variables are left out: they may hold secrets.

    Args:
        argv: the command line, as `sys.argv`.
        step: that the run was resumed from, 0 for a new one.
        devices: names of the devices, one for each process.

    Returns:
        Plain values: `started` (local time with the offset from UTC), `command`, `folder` (in which it was typed), `from_step`, `host`,
        `platform`, `devices`, `python`, `irformer` (its version), `code` (`commit` and `dirty`, or None outside of a git checkout),
        `packages` (None for one that is not installed).
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
        "irformer": irformer.__version__,
        "code": git_state([Path(irformer.__file__).parent, CONFIGS]),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def add_entry(file: Path, entry: dict[str, Any]) -> None:
    """Append an entry to provenance.json; a file that cannot be read is kept under another name.

    Args:
        file: holds `{"starts": [...]}`; it is created where there is none.
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
    """The model of the CPU, as Linux calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())


def git_state(paths: Sequence[Path], seconds: float = _GIT_SECONDS) -> dict[str, Any] | None:
    """The commit that files belong to, and whether they differ from it. Nothing is written, and no hook is run.

    Args:
        paths: of one checkout.
        seconds: after which git is given up.

    Returns:
        `{"commit": ..., "dirty": ...}`; None without git, outside of a checkout, where git does not track the first path (as in a virtual
        environment within somebody's checkout), and where git does not answer in time.
    """
    names = [str(path) for path in paths]
    tracked = _git(paths[0], ["ls-files", "--", names[0]], seconds)
    commit = _git(paths[0], ["rev-parse", "--verify", "HEAD"], seconds) if tracked else None
    changes = _git(paths[0], ["status", "--porcelain", "--ignore-submodules", "--", *names], seconds) if commit else None
    if not commit or changes is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def _git(folder: Path, words: Sequence[str], seconds: float) -> str | None:
    # status runs the file system monitor that a configuration names, and a hook where it refreshes the index.
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
            os.killpg(process.pid, signal.SIGKILL)  # with what it has started, which may hold the pipe
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
