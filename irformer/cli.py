"""The commands: train, benchmark, restore and export, and how a user's mistake is told in one line."""

import argparse
import contextlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from tqdm import tqdm

from irformer.benchmark import results_record
from irformer.checkpoints import export_checkpoint, load_checkpoint
from irformer.config import CONFIGS, compose, instantiate, nearest, options
from irformer.data.images import list_images, read_image, write_image
from irformer.errors import UserError
from irformer.files import write_atomically
from irformer.inference import BicubicRestorer, NetworkRestorer, Restorer
from irformer.report import benchmark_table, readable_console, sweep_table
from irformer.reproduce import reproduce_figure1
from irformer.tasks import Task
from irformer.training.build import build_run, find_test_sets
from irformer.training.run import measure_test_sets

# Words whose meaning a resumed run has fixed, and words that may differ on the machine where it goes on.
_FIXED = ("task", "model", "norm", "optim", "experiment", "debug")
_REPLACEABLE = ("data", "trainer", "callbacks", "logger")

OmegaConf.register_new_resolver(
    "irformer.run_folder", lambda resume, runs, name: str(Path(resume) if resume else Path(runs) / name), replace=True
)
OmegaConf.register_new_resolver("irformer.file_name", lambda path: Path(path).stem, replace=True)


def train() -> None:
    """Train one run, or a sweep with -m: python train.py norm=iln model=swinir."""
    _command(_train, "train")


def benchmark() -> None:
    """Measure a checkpoint on test sets: python scripts/benchmark.py checkpoint=PATH|bicubic task=sr_x2 'test_sets=[Set5]'."""
    _command(_benchmark, "benchmark")


def restore() -> None:
    """Restore an image or a folder of images: python scripts/restore.py INPUT OUTPUT --checkpoint PATH."""
    parser = argparse.ArgumentParser(description="Restore an image, or all images of a folder.")
    parser.add_argument("input", type=Path, help="image file or folder")
    parser.add_argument("output", type=Path, help="image file, or folder for a folder")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run's folder or a file of weights")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; auto takes a GPU where there is one")
    arguments = parser.parse_args()
    _quieten()
    try:
        _restore(arguments.input, arguments.output, arguments.checkpoint, arguments.device)
    except UserError as error:
        _fail(str(error))


def reproduce() -> None:
    """Reproduce a claim of the paper: python scripts/reproduce.py figure1 budget=cpu|gpu|paper [out=FOLDER] [overrides of train.py]."""
    parser = argparse.ArgumentParser(description="Reproduce a claim of the i-LN paper.")
    parser.add_argument("claim", choices=["figure1"], help="what to reproduce")
    parser.add_argument("overrides", nargs="*", help="budget=cpu|gpu|paper, out=FOLDER, and overrides of train.py for all arms")
    arguments = parser.parse_args()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    _quieten()
    try:
        odd = [word for word in arguments.overrides if "=" not in word]
        if odd:
            raise UserError(f"{odd[0]}: expected KEY=VALUE, as budget=cpu, out=FOLDER or an override of train.py")
        words = dict(word.split("=", 1) for word in arguments.overrides)
        budget = words.pop("budget", "cpu")
        out = Path(words.pop("out", f"runs/{arguments.claim}-{budget}"))
        if budget not in ("cpu", "gpu", "paper"):
            raise UserError(f"budget={budget}: expected cpu, gpu or paper")
        reproduce_figure1(budget, out, [f"{key}={value}" for key, value in words.items()], readable_console())
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _fail(_explain(error, "train"))


def export() -> None:
    """Write a checkpoint for other tools: python scripts/export.py CHECKPOINT OUT --format safetensors|official."""
    parser = argparse.ArgumentParser(description="Write the network of a checkpoint into one file.")
    parser.add_argument("checkpoint", type=Path, help="a run's folder or a file of weights")
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument(
        "--format",
        choices=("safetensors", "official"),
        default="safetensors",
        help="safetensors: ours, with the configuration inside; official: as the official code, .pth or .safetensors by the name of OUT",
    )
    arguments = parser.parse_args()
    _quieten()
    try:
        export_checkpoint(load_checkpoint(arguments.checkpoint), arguments.out, arguments.format)
    except UserError as error:
        _fail(str(error))
    print(f"wrote {arguments.out}")


class SweepTable(Callback):
    """After a multirun: one table of all its runs, on the terminal and as table.md in the sweep's folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read the runs' results.json."""
        folder = Path(config.hydra.sweep.dir)
        table = sweep_table(folder)
        if table is not None:
            table.show(readable_console())
            (folder / "table.md").write_text(table.markdown(), encoding="utf-8")


def _train(cfg: DictConfig) -> None:
    folder = Path(HydraConfig.get().runtime.output_dir)
    if cfg.resume is not None:
        cfg = _resumed_config(cfg, folder, list(HydraConfig.get().overrides.task))
    build_run(cfg, folder).execute(readable_console())


def _resumed_config(cfg: DictConfig, folder: Path, overrides: list[str]) -> DictConfig:
    """The interrupted run's own configuration, with what the command line says about where and how long it goes on."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(f"resume={cfg.resume}: no {file}; give the folder of a run")
    saved = OmegaConf.load(file)
    assert isinstance(saved, DictConfig)
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0]
        if key in _FIXED:
            raise UserError(
                f"{override} together with resume: a resumed run keeps its {key}; init_from={cfg.resume} starts a new run from it"
            )
        if key in _REPLACEABLE:
            saved[key] = cfg[key]
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0]
        if key not in _REPLACEABLE:
            OmegaConf.update(saved, key, OmegaConf.select(cfg, key), force_add=True)
    return saved


def _benchmark(cfg: DictConfig) -> None:
    task: Task = instantiate(cfg.task)
    test_sets = find_test_sets(cfg.test_sets, Path(cfg.paths.data), task)
    restorer, name = _restorer(cfg.checkpoint, cfg.model, task, cfg.device)
    results = measure_test_sets(restorer, test_sets)
    console = readable_console()
    benchmark_table(task.name, task.protocol.metrics, {name: results}).show(console)
    file = Path(cfg.out) / "results.json"
    record = results_record(str(cfg.checkpoint), task, results)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda aside: aside.write_text(json.dumps(record, indent=1) + "\n"))
    console.print(f"results: {file}")


def _restorer(checkpoint: str, model: DictConfig, task: Task, device: str) -> tuple[Restorer, str]:
    """A restorer for a task, and how tables call it."""
    if checkpoint == "bicubic":
        if task.scale == 1:
            raise UserError(f"checkpoint=bicubic enlarges images, and {task.name} keeps their size")
        return BicubicRestorer(task.scale), "bicubic (this run)"
    overrides: Any = OmegaConf.to_container(model, resolve=True)
    loaded = load_checkpoint(Path(checkpoint), overrides)
    network = loaded.network
    if (network.scale, network.in_channels) != (task.scale, task.channels):
        raise UserError(
            f"checkpoint={checkpoint} was trained for {loaded.task or 'a task'} (scale {network.scale}, {network.in_channels} channels), "
            f"and task={task.name} needs scale {task.scale}, {task.channels} channels"
        )
    where = _device(device)
    return NetworkRestorer(network.to(where), task.protocol.padding, where), loaded.title


def _restore(source: Path, target: Path, checkpoint: Path, device: str) -> None:
    loaded = load_checkpoint(checkpoint)
    where = _device(device)
    restorer = NetworkRestorer(loaded.network.to(where), "reflect_min", where)
    if source.is_dir():
        files = list_images(source, "name an image or a folder of images")
        jobs = [(file, target / f"{file.stem}.png") for file in files]
        target.mkdir(parents=True, exist_ok=True)
    else:
        jobs = [(source, target / f"{source.stem}.png" if target.is_dir() else target)]
    for file, out in tqdm(jobs, unit="image", disable=None):
        write_image(out, restorer(read_image(file)))
    print(f"{len(jobs)} images restored x{loaded.network.scale}: {target}")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name} cannot be used: {str(error).splitlines()[0]}") from None


def _command(function: Callable[[DictConfig], None], config: str) -> None:
    """Run a function under Hydra; a mistake of the user ends it with one line and status 1."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions come here instead of being printed by Hydra
    _quieten()

    def guarded(cfg: DictConfig) -> None:
        try:
            function(cfg)
        except (UserError, MissingMandatoryValue) as error:
            with contextlib.suppress(OSError):
                Path(HydraConfig.get().runtime.output_dir).rmdir()  # made by Hydra; stays if a run has written to it
            _fail(_explain(error, config))

    guarded.__module__ = __name__
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config)(guarded)()
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_explain(error, config))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _explain(error: Exception, config: str) -> str:
    """One line for a mistake on the command line, with what would have been right."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file and "/" in cause.missing_cfg_file:
            group, _, name = cause.missing_cfg_file.rpartition("/")
            known = [option for option in options(group) if not option.startswith("_")]
            return f"{group}={name}: unknown {group}; known: {', '.join(known)}{nearest(name, known)}"
        if isinstance(cause, MissingMandatoryValue):
            key = cause.full_key or str(cause).rpartition(" ")[2]
            return f"{key} is required: give {key}=VALUE"
        cause = cause.__cause__
    if isinstance(error, ConfigCompositionException) and str(error).startswith("Could not override '"):
        key = str(error).split("'")[1]
        return f"unknown key {key}{nearest(key, _keys(compose(config, [])))}"
    return " ".join(str(error).split())


def _keys(node: Any, prefix: str = "") -> list[str]:
    """All keys of a configuration, dotted."""
    keys = []
    for key in node:
        keys.append(f"{prefix}{key}")
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if isinstance(node[key], DictConfig):
            keys += _keys(node[key], f"{prefix}{key}.")
    return keys


def _quieten() -> None:
    """Leave the terminal to the summary, the progress and the table; warnings about the user's data or keys are errors here."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", category=FutureWarning)
    # Our own lines, such as what a file of weights was recognised as, are for the user.
    own = logging.getLogger("irformer")
    own.setLevel(logging.INFO)
    own.handlers = [logging.StreamHandler()]
