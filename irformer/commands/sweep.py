"""The runs of a multirun: each in a folder named after its overrides, skipped when it is complete, gone on with when it was interrupted."""

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from irformer.arms import differing_keys, flat_config, read_config
from irformer.checkpoints import BEST, saved_validation
from irformer.compare import sweep_table
from irformer.errors import UserError
from irformer.files import write_atomically
from irformer.processes import rank, started_together
from irformer.report import readable_console
from irformer.training.build import build_run
from irformer.training.resuming import has_checkpoint, is_complete

# Not in a job's folder name: task, model, norm and seed stand at its front, the others say where it runs and not what.
_UNNAMED = (
    "task",
    "model",
    "norm",
    "seed",
    "name",
    "sweep",
    "resume",
    "trust",
    "launcher",
    "sweeper",
    "trainer",
    "logger",
    "callbacks",
    "checkpoint_every",
    "max_batch_per_device",
)
_UNNAMED_BELOW = ("paths.", "logger.", "callbacks.", "hydra.", "hydra/")
_UNNAMED_KEYS = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "data.packed",
    "data.allow_test_images",
    "data.workers",
    "data.cache_gb",
)
_LONGEST_NAME = 160  # characters; file systems end at 255 bytes


def job_folder(task: str, model: str, norm: str, seed: int, overrides: Sequence[str]) -> str:
    """The folder of one run within its sweep: a function of its own overrides alone, so that further runs beside it rename none.

    `norm=ln seed=1 optim.lr=1e-4` gives `sr_x2-swinir-ln-s1-optim.lr=1e-4`. Two configurations that come to one name are told apart
    when the second is about to start (`folder holds a run of another configuration`).
    """
    words = []
    for override in sorted(overrides):
        key, _, value = override.lstrip("+").partition("=")
        if key not in (*_UNNAMED, *_UNNAMED_KEYS) and not key.startswith(_UNNAMED_BELOW):
            words.append(re.sub(r"[^\w.=,~+-]+", "_", f"{key}={value}".translate({ord(sign): None for sign in "[]{}'\" "})))
    name = "-".join([task, model, norm, f"s{seed}", *words])
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


class SweepTable(Callback):
    """One table of all runs of a multirun: table.md in the sweep's folder after each run, and on the terminal at the end."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Write what there is, since the others may take days, or fail."""
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            self._write(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the table of all runs."""
        table = self._write(Path(config.hydra.sweep.dir))
        if table is not None:
            table.show(readable_console())

    def _write(self, folder: Path) -> Any:
        table = sweep_table(folder)
        if table is not None:
            write_atomically(folder / "table.md", lambda aside: aside.write_text(table.markdown(), encoding="utf-8"))
        return table


def refuse_many_launchers(words: Sequence[str]) -> None:
    """Refuse `-m` where torchrun or srun has started several processes: each of them would start the whole sweep.

    Args:
        words: of the command line.

    Raises:
        UserError: with the ways that work.
    """
    if not {"-m", "--multirun"} & set(words):
        return
    if started_together():
        launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "srun"
        raise UserError(
            f"-m under {launcher}: each process would start the whole sweep. Leave out {launcher} (a run of several devices gets its own "
            f"processes), or -m and give sweep=NAME: {launcher} ... train.py sweep=NAME KEY=VALUE is one run"
        )


def sweep_job(cfg: DictConfig, folder: Path, console: Console) -> float:
    """Bring one run of a sweep to its end, from wherever it stands.

    Args:
        cfg: of the run.
        folder: of the run.
        console: where it is said what is done.

    Returns:
        The first metric of the best validation (PSNR in dB), which a sweeper such as Optuna maximises.

    Raises:
        UserError: the folder holds a run of another configuration, or the run cannot be built.
    """
    if cfg.resume not in (None, "auto"):
        raise UserError(f"resume={cfg.resume} in a sweep: every run goes on by itself where it stands; sweep=NAME names the sweep")
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN and _many_processes(cfg) and not started_together():
        if not _is_complete(cfg, folder, console):
            _run_in_own_process(list(hydra.overrides.task), folder)
        return _score(folder)
    if not _is_complete(cfg, folder, console):
        cfg.resume = None
        if has_checkpoint(folder):
            _say(console, f"resumed: {_shown(folder)}")
            cfg.resume, cfg.name = str(folder), read_config(folder / "config.yaml").name
        build_run(cfg, folder).execute(console)
    return _score(folder)


def _is_complete(cfg: DictConfig, folder: Path, console: Console) -> bool:
    """Whether a run has come to its end, with this configuration.

    Raises:
        UserError: what the folder holds is of another configuration.
    """
    done = is_complete(folder, cfg.trainer.max_steps)
    if not done and not has_checkpoint(folder):
        return False
    there, here = flat_config(read_config(folder / "config.yaml")), flat_config(cfg)
    if differing := differing_keys(there, here):
        told = [f"{key} is {there.get(key, 'not set')} there and {here.get(key, 'not set')} here" for key in differing[:3]]
        more = f", and {len(differing) - 3} more keys" if len(differing) > 3 else ""
        raise UserError(
            f"{_shown(folder)} holds a run of another configuration: {'; '.join(told)}{more}; sweep=NAME starts a sweep in another folder"
        )
    if done:
        _say(console, f"complete: {_shown(folder)}")
    return done


def _score(folder: Path) -> float:
    return next(iter(saved_validation(folder / BEST).values()))


def _many_processes(cfg: DictConfig) -> bool:
    """Whether Lightning would start further processes for a run by repeating this command, and with it the whole sweep."""
    return str(cfg.trainer.devices) != "1" or str(cfg.trainer.num_nodes) != "1"


def _run_in_own_process(overrides: Sequence[str], folder: Path) -> None:
    """The same run as a command of its own, which Lightning can repeat for each further process.

    Ctrl-C reaches that process by itself and SIGTERM is passed on, so that it saves before it ends.

    Raises:
        UserError: it has failed.
    """
    command = [sys.executable, "-m", "irformer.commands.train", *overrides, f"sweep={folder.parent.name}", f"hydra.run.dir='{folder}'"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})
    stopped = []

    def pass_on(signum: int, _frame: FrameType | None) -> None:
        stopped.append(128 + signum)
        if signum == signal.SIGTERM:
            process.send_signal(signum)

    before = {signum: signal.signal(signum, pass_on) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = process.wait()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if stopped:
        sys.exit(stopped[0])
    if status:
        raise UserError(f"{_shown(folder)}: its process has ended with status {status}; what it said stands above")


def _shown(folder: Path) -> str:
    return os.path.relpath(folder)


def _say(console: Console, line: str) -> None:
    if rank() == 0:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


OmegaConf.register_new_resolver("irformer.job_folder", job_folder, replace=True)
