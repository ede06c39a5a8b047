"""Evaluate checkpoints on test sets: python scripts/benchmark.py 'checkpoint=[PATH,bicubic]' [task=NAME] 'test_sets=[Set5]'."""

import re
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.text import Text

from irformer.benchmarks.benchmark_page import write_benchmark_page
from irformer.benchmarks.paper_tables import latex_text, markdown_text, per_image_csv, require_reference, table_csv, task_tables
from irformer.benchmarks.results_folder import ResultsFolder, digest, identity
from irformer.benchmarks.session import Session
from irformer.benchmarks.workload import Workload, plan_workload
from irformer.commands.common import command, device
from irformer.core.files import write_atomically
from irformer.errors import UserError
from irformer.reporting.page import readable_console


def benchmark() -> None:
    """Evaluate checkpoints on test sets: python scripts/benchmark.py 'checkpoint=[PATH,bicubic]' [task=NAME] 'test_sets=[Set5]'."""
    command(_benchmark, "benchmark")


def _benchmark(cfg: DictConfig) -> None:
    places = _devices(cfg.device, cfg.devices)
    workload = plan_workload(cfg, list(HydraConfig.get().overrides.task), places[0] if len(places) == 1 else torch.device("cpu"))
    require_reference(workload, cfg.reference)
    folder = ResultsFolder(_folder(cfg, workload))
    if cfg.out is not None:
        _require_outside(folder.folder, workload)
    console = readable_console()
    for line in workload.skipped:
        console.print(Text(f"skipped: {line}"), soft_wrap=True)
    with folder.reserved():
        session = Session(folder, places[0], places, cfg.save_images, cfg.remeasure)
        records = session.measure(workload)
        tables = task_tables(workload, records, cfg.reference)
        for table in (table for part in tables for table in part.tables):
            table.show(console)
        texts = {
            "table.csv": table_csv(tables),
            "table.md": markdown_text(tables),
            "table.tex": latex_text(tables),
            "per_image.csv": per_image_csv(records),
        }
        with folder.writing():
            for name, text in texts.items():
                write_atomically(folder.folder / name, lambda temporary, text=text: temporary.write_text(text, encoding="utf-8"))  # type: ignore[misc]
            write_benchmark_page(folder.folder / "report.html", workload, records, tables, session.saved_image)
    console.print(f"results: {folder.file}; also {', '.join(texts)}, report.html", highlight=False, markup=False, soft_wrap=True)


def _devices(name: str, count: int) -> list[torch.device]:
    """Return the devices that share the images.

    Raises:
        UserError: there are fewer.
    """
    first = device(name)
    if count == 1:
        return [first]
    if first.type == "cpu":
        return [first] * count
    found = torch.cuda.device_count() if first.type == "cuda" else 1
    if count > found or first.index:
        raise UserError(f"devices={count}: found {found} {first.type.upper()} devices from device={name}; expected at most as many")
    return [torch.device(first.type, i) for i in range(count)]


def _folder(cfg: DictConfig, workload: Workload) -> Path:
    """Return the folder of results.json: the folder given by the user, or a subfolder such as `first-sr_x2-1a2b3c4d`.

    The name depends on the weights, changes to the networks, the tasks, protocols, departures and extra metrics, but not on paths of files.
    In a multirun, a folder given by the user contains one such folder for each job.
    """
    hydra = HydraConfig.get()
    given = {override.lstrip("+").partition("=")[0] for override in hydra.overrides.hydra}
    if cfg.out is not None and "hydra.run.dir" in given:
        raise UserError(f"out={cfg.out} and hydra.run.dir={hydra.run.dir} both set the folder of results.json; give only one of them")
    evaluations = workload.evaluations
    identities = [identity(evaluation.record()) for evaluation in evaluations]
    subjects = list(dict.fromkeys(evaluation.subject.short for evaluation in evaluations))
    tasks = list(dict.fromkeys(evaluation.task.label for evaluation in evaluations))
    precision = [] if cfg.precision == "fp32" else [cfg.precision]
    name = "-".join([_and_others(subjects), _and_others(tasks), *precision, digest(identities)[:8]])
    if hydra.mode == RunMode.MULTIRUN:
        return Path(hydra.runtime.output_dir) if "hydra.sweep.subdir" in given else Path(hydra.sweep.dir) / name
    return Path(hydra.run.dir) if cfg.out is not None or "hydra.run.dir" in given else Path(hydra.run.dir) / name


def _require_outside(folder: Path, workload: Workload) -> None:
    """Check that the output folder is not inside the folder of a test set, whose images would be mixed with its own.

    Raises:
        UserError: it is.
    """
    for evaluation in workload.evaluations:
        for test_set in evaluation.test_sets:
            for pair in test_set.pairs:
                if folder.resolve().is_relative_to(pair.hq.parent.resolve()):
                    raise UserError(f"out={folder}: is inside {pair.hq.parent}, the folder of {test_set.name}; choose another folder")


def _and_others(names: list[str]) -> str:
    """Shorten names for a folder name, and replace characters that are special in a shell or in Hydra."""
    first = re.sub(r"[^\w.+]+", "_", names[0])[:60].strip("_") or "checkpoint"
    return first if len(names) == 1 else f"{first}+{len(names) - 1}"
