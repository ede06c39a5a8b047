"""From a configuration to a run: the one place that knows both the keys that people type and the objects they stand for."""

import os
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from irformer.checkpoints import BEST, LAST, network_record, save_network, transfer_weights
from irformer.config import build_network, instantiate
from irformer.data.leaks import require_no_test_images
from irformer.data.module import RestorationData
from irformer.data.samples import TrainingSamples
from irformer.data.test_sets import TestSet
from irformer.errors import UserError
from irformer.tasks import Task
from irformer.training.checkpointing import BestWeights, Ema, LastCheckpoint
from irformer.training.data import TrainingData, find_test_sets, training_data, validation_set, workers
from irformer.training.logs import MetricsCsv
from irformer.training.module import RestorationModule
from irformer.training.run import Run


def build_run(cfg: DictConfig, folder: Path) -> Run:
    """Build a run and check everything that can be checked before training starts.

    Args:
        cfg: composed from configs/train.yaml.
        folder: of the run.

    Raises:
        UserError: the configuration or the data cannot be used as they are.
    """
    root = Path(cfg.paths.data)
    resume = _resume_checkpoint(cfg, folder)
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    task: Task = instantiate(cfg.task)
    training = training_data(cfg, task)
    samples = TrainingSamples(training.images, task, cfg.patch_size, cfg.seed)
    validation = validation_set(cfg.data, root, task)
    test_sets = find_test_sets(cfg.test_sets, root, task)
    notes = dict(training.notes)

    network = build_network(cfg.model)
    if cfg.init_from and resume is None:  # a resumed run has weights of its own
        notes["init_from"] = str(transfer_weights(network, Path(cfg.init_from)))
    schedule = instantiate(cfg.optim.schedule)
    module = RestorationModule(network, task, instantiate(cfg.loss), instantiate(cfg.optim.optimizer), schedule, cfg.seed)
    data = RestorationData(samples, validation, cfg.batch_size, workers(cfg))
    trainer = _build_trainer(cfg, folder, resume)

    # Last of all checks, since it may decode images; what it found is kept beside the runs, for the next of them.
    allowed, fingerprints = list(cfg.data.allow_test_images), folder.parent / ".image_fingerprints.json"
    require_no_test_images(training.images, [validation, *test_sets], allowed, fingerprints)

    title = f"{cfg.model.name}, norm {cfg.norm.name}, {task.name}"
    # The name is fixed by the first reading (it holds the time); everything else stays as it was composed, so that a resumed run can
    # change a key and have what refers to it follow.
    cfg.name = str(cfg.name)
    config = OmegaConf.to_yaml(cfg)
    facts = _facts(cfg, folder, task, training, validation, network, trainer, resume) | notes
    return Run(folder, title, config, facts, task, module, data, trainer, test_sets, resume)


def _build_trainer(cfg: DictConfig, folder: Path, resume: Path | None) -> lightning.Trainer:
    # Without max_steps the progress bar, the schedule and the sampler would have no end to go by.
    if cfg.trainer.max_steps < 1:
        raise UserError(f"trainer.max_steps={cfg.trainer.max_steps}: expected the number of optimizer steps, 1 or more")
    start_step = _step_of(resume)
    if start_step >= cfg.trainer.max_steps:
        raise UserError(f"{resume} stands at step {start_step} already: give trainer.max_steps a larger number to go on")
    model: Any = OmegaConf.to_container(cfg.model, resolve=True)

    def save_best(module: RestorationModule, step: int, metrics: dict[str, float]) -> None:
        save_network(folder / BEST, module.network, model, cfg.task.name, step, metrics)

    def record(step: int) -> str:
        return network_record(model, cfg.task.name, step, {})

    callbacks: list[lightning.Callback] = [BestWeights(save_best)]
    if cfg.optim.ema is not None:
        callbacks.append(Ema(cfg.optim.ema))
    callbacks.append(LastCheckpoint((folder / LAST).parent, min(cfg.checkpoint_every, cfg.trainer.max_steps), record))
    callbacks += [instantiate(node) for node in cfg.callbacks.values() if node is not None]
    loggers: list[Any] = [MetricsCsv(folder / "metrics.csv", start_step)]
    if cfg.logger.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard", purge_step=start_step or None))
    return instantiate(
        cfg.trainer,
        precision=_precision(cfg.trainer.precision, cfg.trainer.accelerator),
        val_check_interval=min(cfg.trainer.val_check_interval, cfg.trainer.max_steps) * cfg.trainer.accumulate_grad_batches,
        log_every_n_steps=min(cfg.trainer.log_every_n_steps, cfg.trainer.max_steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
        callbacks=callbacks,
        logger=loggers,
    )


def _precision(wanted: str, accelerator: str) -> str:
    """`auto` means bf16 autocast on GPUs that have it, and full precision everywhere else."""
    if wanted != "auto":
        return wanted
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def _resume_checkpoint(cfg: DictConfig, folder: Path) -> Path | None:
    checkpoint = folder / LAST
    if cfg.resume is None:
        if checkpoint.exists():
            raise UserError(f"{folder} holds a run already: resume={folder} goes on with it, name=NAME starts another beside it")
        return None
    if not checkpoint.is_file():
        raise UserError(f"resume={cfg.resume}: no checkpoint {checkpoint}; give the folder of a run that has saved one")
    return checkpoint


def _step_of(checkpoint: Path | None) -> int:
    if checkpoint is None:
        return 0
    return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"]


def _facts(
    cfg: DictConfig,
    folder: Path,
    task: Task,
    training: TrainingData,
    validation: TestSet,
    network: nn.Module,
    trainer: lightning.Trainer,
    resume: Path | None,
) -> dict[str, str]:
    """What the summary says before training starts."""
    parameters = sum(p.numel() for p in network.parameters())
    patch = f"{cfg.patch_size}x{cfg.patch_size} LQ" + (f", {cfg.patch_size * task.scale} HQ" if task.scale > 1 else "")
    images = training.images
    lq = "from files" if images.has_lq else "made on the fly"
    standardised = ", standardised input" if cfg.norm.standardize_input else ""
    device = trainer.strategy.root_device
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    steps = f"{trainer.max_steps:,} of {cfg.batch_size} patches of {patch}"
    return {
        "task": task.name,
        "data": f"{cfg.data.name}, {len(images)} images, {training.read_from}, LQ {lq}; "
        f"validation on {validation.name}, {len(validation)} images",
        "network": f"{cfg.model.name}, {parameters:,} parameters",
        "norm": f"{cfg.norm.name}, ends {cfg.norm.ends}{standardised}",
        "device": f"{trainer.world_size} x {device_name}, precision {trainer.precision}",
        "steps": steps + (f", from step {_step_of(resume):,}" if resume else ""),
        "folder": os.path.relpath(folder),
    }
