"""Execute the runs of a sweep: skip complete runs, resume interrupted ones, and write one table of all results."""

import os
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
from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from irformer.config.compose import config_dir_arguments
from irformer.config.metrics import build_metrics
from irformer.core.files import write_atomically
from irformer.core.processes import rank, started_together
from irformer.errors import UserError
from irformer.metrics import METRICS
from irformer.reporting.page import readable_console
from irformer.runs.arms import differing_keys, flat_config, read_config
from irformer.runs.comparison import sweep_table
from irformer.runs.sweep_folders import name_by_swept_keys
from irformer.training.build import build_run
from irformer.training.resuming import has_checkpoint, is_complete
from irformer.weights.checkpoints import BEST, saved_validation


class SweepTable(Callback):
    """Hydra callback that names the folders of a multirun's runs, writes table.md after each run, and prints it at the end."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the runs by the swept keys."""
        name_by_swept_keys(config, list(config.hydra.overrides.task))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Update table.md, because the remaining runs may take days or fail."""
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            self._write(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table of all runs."""
        table = self._write(Path(config.hydra.sweep.dir))
        if table is not None:
            table.show(readable_console())

    def _write(self, folder: Path) -> Any:
        table = sweep_table(folder)
        if table is not None:
            write_atomically(folder / "table.md", lambda temporary: temporary.write_text(table.markdown(), encoding="utf-8"))
        return table


def refuse_many_launchers(arguments: Sequence[str]) -> None:
    """Refuse `-m` if torchrun or srun has started several processes, because each process would start the whole sweep.

    Args:
        arguments: command-line arguments.

    Raises:
        UserError: `-m` was given; the message lists the alternatives.
    """
    if not {"-m", "--multirun"} & set(arguments):
        return
    if started_together():
        launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "srun"
        raise UserError(
            f"-m under {launcher}: each process would start the whole sweep. Omit {launcher} (a run on several devices starts its own "
            f"processes), or replace -m by sweep=NAME: {launcher} ... train.py sweep=NAME KEY=VALUE is one run"
        )


def sweep_job(cfg: DictConfig, folder: Path, console: Console) -> float:
    """Start, resume or skip one run of a sweep.

    Args:
        cfg: the run's configuration.
        folder: the run's folder.
        console: where progress is printed.

    Returns:
        The first metric of the best validation (PSNR in dB), which a sweeper such as Optuna maximizes. A metric for which lower is better
        is negated.

    Raises:
        UserError: the folder contains a run with another configuration, or the run cannot be built.
    """
    if cfg.resume not in (None, "auto"):
        raise UserError(f"resume={cfg.resume} in a sweep: interrupted runs resume automatically; sweep=NAME selects the sweep")
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task) if hydra.mode == RunMode.MULTIRUN else None
    finish_run(cfg, folder, console, "sweep=NAME starts a sweep in another folder", overrides)
    return _score(cfg, folder)


def finish_run(
    cfg: DictConfig, folder: Path, console: Console, remedy: str, overrides: Sequence[str] | None = None, quiet: bool = False
) -> None:
    """Start a run, resume it if it was interrupted, or skip it if it is finished.

    Nothing is deleted, and no finished run is trained again.

    Args:
        cfg: the run's configuration; `resume` and `name` are set as needed.
        folder: the run's folder.
        console: where progress is printed.
        remedy: how to choose another folder, for error messages.
        overrides: the run's overrides of train.py if this command executes several runs: a run with several processes then becomes a
            separate command, because Lightning re-executes the command for each process. None if the command executes only this run.
        quiet: write the summary and the table of the run only to its log.txt.

    Raises:
        UserError: the folder contains a run with another configuration, or the run cannot be built.
    """
    finished = require_same_run(cfg, folder, remedy)
    if finished:
        _print(console, f"complete: {_relative(folder)}")
    elif overrides is not None and _many_processes(cfg) and not started_together():
        _run_in_own_process(overrides, folder)
    else:
        cfg.resume = None
        if has_checkpoint(folder):
            _print(console, f"resumed: {_relative(folder)}")
            cfg.resume, cfg.name = str(folder), read_config(folder / "config.yaml").name
        build_run(cfg, folder).execute(Console(quiet=True) if quiet else console)


def require_same_run(cfg: DictConfig, folder: Path, remedy: str) -> bool:
    """Check that a folder does not contain a different run.

    Args:
        cfg: the run's configuration.
        folder: the run's folder; it may not exist yet.
        remedy: how to choose another folder, for error messages.

    Returns:
        Whether the run is finished.

    Raises:
        UserError: the folder contains a run with another configuration.
    """
    done = is_complete(folder, cfg.trainer.max_steps)
    if not done and not has_checkpoint(folder):
        return False
    there, here = flat_config(read_config(folder / "config.yaml")), flat_config(cfg)
    if differing := differing_keys(there, here):
        shown = [f"{key} is {there.get(key, 'not set')} there and {here.get(key, 'not set')} here" for key in differing[:3]]
        more = f", and {len(differing) - 3} more keys" if len(differing) > 3 else ""
        raise UserError(f"{_relative(folder)} contains a run with another configuration: {'; '.join(shown)}{more}; {remedy}")
    return done


def _score(cfg: DictConfig, folder: Path) -> float:
    name, value = next(iter(saved_validation(folder / BEST).items()))
    metric = METRICS.get(name) or build_metrics(cfg.metrics, cfg.task.channels)[name]
    return value if metric.higher_is_better else -value


def _many_processes(cfg: DictConfig) -> bool:
    """Return whether Lightning would re-execute this command, and with it the whole sweep, to start more processes for a run."""
    return str(cfg.trainer.devices) != "1" or str(cfg.trainer.num_nodes) != "1"


def _run_in_own_process(overrides: Sequence[str], folder: Path) -> None:
    """Execute a run as a separate command, which Lightning can re-execute for each additional process.

    The process receives Ctrl-C directly, and SIGTERM is forwarded, so that it saves a checkpoint before it exits.

    Raises:
        UserError: the process failed.
    """
    command = [
        sys.executable,
        "-m",
        "irformer",
        *config_dir_arguments(),
        *overrides,
        f"sweep={folder.parent.name}",
        f"hydra.run.dir='{folder}'",
    ]
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})
    stopped = []

    def forward(signum: int, _frame: FrameType | None) -> None:
        stopped.append(128 + signum)
        if signum == signal.SIGTERM:
            process.send_signal(signum)

    before = {signum: signal.signal(signum, forward) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = process.wait()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if stopped:
        sys.exit(stopped[0])
    if status:
        raise UserError(f"{_relative(folder)}: the process exited with status {status}; see its output above")


def _relative(folder: Path) -> str:
    return os.path.relpath(folder)


def _print(console: Console, line: str) -> None:
    if rank() == 0:
        console.print(Text(line), soft_wrap=True)
