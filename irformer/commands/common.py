"""Code shared by the commands: running under Hydra, one-line error messages, logging setup, devices.

Importing it loads no torch, so that a misspelled key is reported at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from irformer.config.compose import compose, options, searching
from irformer.core.faults import machine_fault
from irformer.core.folders import CONFIGS, typed_config_dir
from irformer.core.libraries import silence_libraries
from irformer.core.processes import rank
from irformer.core.words import nearest
from irformer.errors import UserError
from irformer.schema.check import check_config
from irformer.schema.names import EXPECTED, is_folder_name
from irformer.schema.phrases import show

if TYPE_CHECKING:
    import torch

# Seconds after which a launcher has noticed that rank 0 exited and has terminated the other ranks.
_OTHERS_WAIT = 10

_UNKNOWN_KEY = "Could not override '"  # the start of Hydra's message

# Hydra's launchers and sweepers in separate packages, and irformer's extras that install them.
_PLUGINS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "optuna": "optuna"}


def _run_folder(resume: str | None, runs: str, sweep: str | None, job: str, name: str) -> str:
    """Return the folder of a run: the folder that it resumes, its folder in a sweep, or a new one.

    Hydra creates the folder before any of our code runs, so names that would lead elsewhere are refused here.
    """
    for key, value in (("sweep", sweep), ("name", name)):
        if resume in (None, "auto") and value is not None and not is_folder_name(str(value)):
            raise UserError(f"{key}={show(value)}: expected {EXPECTED}")
    return str(Path(resume) if resume not in (None, "auto") else Path(runs) / str(sweep) / job if sweep else Path(runs) / str(name))


OmegaConf.register_new_resolver("irformer.run_folder", _run_folder, replace=True)
OmegaConf.register_new_resolver("irformer.file_name", lambda path: Path(path).stem, replace=True)
OmegaConf.register_new_resolver("irformer.first", lambda *words: next(word for word in words if word is not None), replace=True)


def command(function: Callable[[DictConfig], float | None], config: str) -> None:
    """Run a function under Hydra; a user error is printed in one line and ends the process with status 1.

    In a multirun, an error ends only its own job: the others continue, and the process exits with status 1 afterwards.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise exceptions here instead of letting Hydra print them
    silence_libraries()

    def guarded(cfg: DictConfig) -> float | None:
        silence_libraries()  # a launcher may have started a new process
        try:
            with searching(_config_dir()):
                check_config(cfg, config)
                return function(cfg)
        except Exception as error:
            folder = Path(HydraConfig.get().runtime.output_dir)
            with contextlib.suppress(OSError):
                folder.rmdir()  # created by Hydra; kept if the run has written to it
            if isinstance(error, (UserError, MissingMandatoryValue)):
                error = UserError(explain(error, config))
            if HydraConfig.get().mode == RunMode.MULTIRUN:  # Hydra reports it only after the last run
                first = next(iter(str(error).splitlines()), "")
                print(f"failed: {os.path.relpath(folder)}: {type(error).__name__}: {first}", file=sys.stderr, flush=True)
            elif isinstance(error, UserError):
                fail(str(error))
            raise error

    guarded.__module__ = __name__
    typed = typed_config_dir(sys.argv[1:])
    try:
        with searching(typed):
            try:
                hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config)(guarded)()
            except (UserError, HydraException, OmegaConfBaseException) as error:
                fail(explain(error, config))
    except UserError as error:  # of the folders that are searched
        fail(str(error))
    except OSError as error:
        _fail_or_raise(error)
    except KeyboardInterrupt:
        sys.exit(130)


def require_known_names(config: str) -> None:
    """Report an unknown key or name on the command line before torch is imported, which takes seconds; then exit with status 1.

    Everything else that Hydra refuses is reported by `command`, which also handles Hydra's own options.

    Args:
        config: `train` or `benchmark`.
    """
    words = sys.argv[1:]
    if any(word.startswith("-") for word in words):
        return
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        compose(config, words)
    except MissingConfigException as error:
        fail(explain(error, config))
    except ConfigCompositionException as error:
        if str(error).startswith(_UNKNOWN_KEY) or isinstance(error.__cause__, MissingConfigException):
            fail(explain(error, config))
    except (UserError, HydraException, OmegaConfBaseException):
        pass


def _config_dir() -> Path | None:
    """The folder that Hydra was given by `--config-dir`. A launcher's process has a command line of its own, but this configuration."""
    sources = HydraConfig.get().runtime.config_sources
    return next((Path(source.path) for source in sources if source.provider == "command-line"), None)


@contextlib.contextmanager
def reporting_user_errors(config: str = "train") -> Iterator[None]:
    """Print a user error raised inside the block in one line and exit with status 1, for commands that do not run under Hydra.

    Args:
        config: the configuration whose keys are suggested for an unknown key.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    silence_libraries()
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException) as error:
        fail(explain(error, config))
    except OSError as error:
        _fail_or_raise(error)


def _fail_or_raise(error: OSError) -> None:
    """Exit with a one-line message for a system error; re-raise any other error."""
    fault = machine_fault(error)
    if fault is None:
        raise error
    fail(fault)


def fail(message: str) -> NoReturn:
    """Print an error in one line and exit with status 1.

    Most errors occur in all processes of a run. Rank 0 reports its error and exits, and the launcher then terminates the other ranks before
    they report theirs.
    """
    if rank() > 0:
        time.sleep(_OTHERS_WAIT)
        message = f"process {rank()}: {message}"
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def explain(error: Exception, config: str) -> str:
    """Describe an error on the command line in one line, with a remedy."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file and "/" in cause.missing_cfg_file:
            group, _, name = cause.missing_cfg_file.rpartition("/")
            if name in _PLUGINS:
                return f"{group}={name} comes with a package that is not installed: pip install 'irformer[{_PLUGINS[name]}]'"
            known = [option for option in options(group) if not option.startswith("_")]
            return f"{group}={name}: unknown {group}; known: {', '.join(known)}{nearest(name, known)}"
        if isinstance(cause, MissingMandatoryValue | InterpolationToMissingValueError):
            # An interpolation names the key that refers to the missing one; both messages end in the missing key.
            key = str(cause).splitlines()[0].rpartition(" ")[2]
            return f"{key} is required: give {key}=VALUE"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, ConfigCompositionException) and str(error).startswith(_UNKNOWN_KEY):
        key = str(error).split("'")[1]
        if (CONFIGS / key).is_dir():  # a group that the defaults do not choose from
            return f"{key}: a group without a default; expected +{key}=NAME or +{key}=[NAME,NAME]"
        return f"unknown key {key}{nearest(key, _keys(compose(config, [])))}"
    return " ".join(str(error).split())


def device(name: str) -> torch.device:
    """Return a device by its name; `auto` prefers CUDA, then MPS (Apple GPUs), then the CPU.

    Raises:
        UserError: there is no such device.
    """
    import torch

    if name == "auto":
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else mps)
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name} cannot be used: {str(error).splitlines()[0]}") from None


def _keys(node: Any, prefix: str = "") -> list[str]:
    """Return all keys of a configuration, dotted."""
    keys = []
    for key in node:
        keys.append(f"{prefix}{key}")
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if isinstance(node[key], DictConfig):
            keys += _keys(node[key], f"{prefix}{key}.")
    return keys


def require_not_checkpoint(file: Path, checkpoint: Path, option: str = "") -> None:
    """Check that an output does not replace the checkpoint that it is made of.

    Args:
        file: the output.
        checkpoint: the weights file.
        option: the option that names the output, with a space after it; empty for a positional argument.

    Raises:
        UserError: they are the same file.
    """
    if file.resolve() == checkpoint.resolve():
        raise UserError(f"{option}{file}: is the checkpoint, which would be overwritten; choose another file")
