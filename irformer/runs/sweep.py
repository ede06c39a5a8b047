"""The runs of a sweep: a run that is complete is skipped, and one that was interrupted is resumed; one table shows all of them."""

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

from irformer.config.compose import config_dir_words
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
    """Names the folders of a multirun's runs, and writes one table of all of them: table.md after each run, the terminal at the end."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the runs by the keys that the multirun sweeps."""
        name_by_swept_keys(config, list(config.hydra.overrides.task))

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
        The first metric of the best validation (PSNR in dB), which a sweeper such as Optuna maximises. The sign of a metric of which
        lower is better is changed.

    Raises:
        UserError: the folder holds a run of another configuration, or the run cannot be built.
    """
    if cfg.resume not in (None, "auto"):
        raise UserError(f"resume={cfg.resume} in a sweep: every run goes on by itself where it stands; sweep=NAME names the sweep")
    hydra = HydraConfig.get()
    words = list(hydra.overrides.task) if hydra.mode == RunMode.MULTIRUN else None
    finish_run(cfg, folder, console, "sweep=NAME starts a sweep in another folder", words)
    return _score(cfg, folder)


def finish_run(
    cfg: DictConfig, folder: Path, console: Console, elsewhere: str, words: Sequence[str] | None = None, quiet: bool = False
) -> None:
    """Bring one of several runs to its end: a finished one stays as it is, an interrupted one is resumed, a missing one is started.

    Nothing is deleted and nothing finished is trained again.

    Args:
        cfg: of the run; `resume` and `name` are set as needed.
        folder: of the run.
        console: where it is said what is done.
        elsewhere: how the user names another folder, for the message.
        words: the run's own overrides of train.py, where this command makes several runs: a run of several processes then becomes a
            command of its own, because Lightning repeats the command for each process. None where the command is this run.
        quiet: leave the summary and the table of the run to its log.txt.

    Raises:
        UserError: the folder holds a run of another configuration, or the run cannot be built.
    """
    finished = require_same_run(cfg, folder, elsewhere)
    if finished:
        _say(console, f"complete: {_shown(folder)}")
    elif words is not None and _many_processes(cfg) and not started_together():
        _run_in_own_process(words, folder)
    else:
        cfg.resume = None
        if has_checkpoint(folder):
            _say(console, f"resumed: {_shown(folder)}")
            cfg.resume, cfg.name = str(folder), read_config(folder / "config.yaml").name
        build_run(cfg, folder).execute(Console(quiet=True) if quiet else console)


def require_same_run(cfg: DictConfig, folder: Path, elsewhere: str) -> bool:
    """Check that a folder holds no other run.

    Args:
        cfg: of the run.
        folder: of the run; it may not exist yet.
        elsewhere: how the user names another folder, for the message.

    Returns:
        Whether the run has come to its end.

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
        raise UserError(f"{_shown(folder)} holds a run of another configuration: {'; '.join(told)}{more}; {elsewhere}")
    return done


def _score(cfg: DictConfig, folder: Path) -> float:
    name, value = next(iter(saved_validation(folder / BEST).items()))
    metric = METRICS.get(name) or build_metrics(cfg.metrics, cfg.task.channels)[name]
    return value if metric.higher_is_better else -value


def _many_processes(cfg: DictConfig) -> bool:
    """Whether Lightning would start further processes for a run by repeating this command, and with it the whole sweep."""
    return str(cfg.trainer.devices) != "1" or str(cfg.trainer.num_nodes) != "1"


def _run_in_own_process(overrides: Sequence[str], folder: Path) -> None:
    """The same run as a command of its own, which Lightning can repeat for each further process.

    Ctrl-C reaches that process by itself and SIGTERM is passed on, so that it saves before it ends.

    Raises:
        UserError: it has failed.
    """
    command = [
        sys.executable,
        "-m",
        "irformer",
        *config_dir_words(),
        *overrides,
        f"sweep={folder.parent.name}",
        f"hydra.run.dir='{folder}'",
    ]
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
        console.print(Text(line), soft_wrap=True)
