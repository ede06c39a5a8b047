"""Builds a run from a configuration: the only module that knows both the keys that users type and the objects that they configure."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from irformer.config.compose import build_network, instantiate, resume_command, trust_of
from irformer.config.image_sets import find_test_sets, named_mixture, training_data, validation_set, workers
from irformer.config.saved import CONFIG, read_saved_config
from irformer.config.tasks import build_task
from irformer.core.trust import foreign_targets
from irformer.data.leaks import require_no_test_images
from irformer.data.mirrored import MirroredImages
from irformer.data.samples import FirstSamples, TrainingSamples
from irformer.errors import UserError
from irformer.models.interface import channels_of_groups
from irformer.schema.check import check_config
from irformer.schema.roles import changed_keys
from irformer.tasks.task import Task
from irformer.training.callbacks.monitor import Clock
from irformer.training.callbacks.order import require_order
from irformer.training.callbacks.saving import BestWeights, CheckpointFiles, DueValidation, Ema, LastCheckpoint
from irformer.training.contracts import require_callback, require_loss, require_norm, require_schedule, require_trainable
from irformer.training.data_module import RestorationData
from irformer.training.loggers import build_loggers
from irformer.training.module import RestorationModule
from irformer.training.network_call import build_call, split_trainer
from irformer.training.precision import benchmark_note, precision_note, set_precision
from irformer.training.recipe import build_mixup, build_optimizer, require_start, training_stages
from irformer.training.resuming import Resume, find_resume, has_checkpoint, is_complete
from irformer.training.run import Run
from irformer.training.sharing import refuse_unsupported_with_fsdp, share_batch
from irformer.training.stopping import StopSignals
from irformer.training.summary import run_summary, takes_norm
from irformer.training.validation_images import choose_images
from irformer.weights.checkpoints import BEST, network_record, require_rebuildable, save_weights, transfer_weights


def build_run(cfg: DictConfig, folder: Path) -> Run:
    """Build a run and check everything that can be checked before training starts.

    Args:
        cfg: configuration composed from configs/train.yaml.
        folder: folder of the run.

    Raises:
        UserError: the configuration or the data cannot be used.
    """
    check_config(cfg, "train")
    require_start(cfg)
    root = Path(cfg.paths.data)
    resume = _resume_checkpoint(cfg, folder)
    stop = StopSignals()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    task = build_task(cfg.task, cfg.metrics)
    training = training_data(cfg, task)
    stages = training_stages(cfg)
    images = MirroredImages(training.images, max(stages.patch_size) * task.scale) if cfg.data.mirror_small else training.images
    samples = TrainingSamples(images, task, stages, cfg.seed)
    # Runs of versions without this key validated on all images.
    val_images, interval = cfg.data.get("val_images", "all"), min(cfg.trainer.val_check_interval, cfg.trainer.max_steps)
    validation = choose_images(validation_set(cfg.data, root, task), val_images, stages, interval)
    test_sets = validation.measured_at_the_end(find_test_sets(cfg.test_sets, root, task, cfg.data.max_megapixels))
    notes = training.notes | named_mixture(cfg.data, [validation.whole, *test_sets])

    block = require_norm(instantiate(cfg.model.norm)) if takes_norm(cfg) else None
    network = build_network(cfg.model)
    if cfg.init_from and resume is None:  # a resumed run has its own weights
        notes["init_from"] = str(transfer_weights(network, Path(cfg.init_from), trust_of(cfg)))
    loss, schedule = instantiate(cfg.loss), instantiate(cfg.optim.schedule)
    require_schedule(schedule, str(cfg.optim.schedule._target_), cfg.trainer.max_steps)
    _try_foreign_classes(cfg, network, block, loss, task, min(*stages.patch_size, 64))
    settings, arguments = split_trainer(_plain(cfg.trainer))
    trainer = _build_trainer(cfg, arguments, folder, stop)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if hasattr(callback, "require_network"):
            callback.require_network(network)
    device = trainer.strategy.root_device
    deterministic = cfg.trainer.deterministic is True
    call, switches = build_call(settings, network, device, len(set(stages.patch_size)), deterministic)
    switches |= benchmark_note(cfg.trainer.benchmark, device) | precision_note(trainer.precision, device)
    optimizer = build_optimizer(cfg, network, trainer.precision)
    module = RestorationModule(network, task, loss, optimizer, schedule, cfg.seed, build_mixup(cfg), call)
    repeated = samples if cfg.data.distinct is None else FirstSamples(samples, cfg.data.distinct)
    data = RestorationData(repeated, validation.chosen, stages, workers(cfg))
    share_batch(trainer, stages.batch_size, cfg.max_batch_per_device)

    # The last check, because it may decode images. Fingerprints are cached next to the runs.
    allowed, fingerprints = list(cfg.data.allow_test_images), folder.parent / ".image_fingerprints.json"
    require_no_test_images(training.images, [validation.whole, *test_sets], allowed, fingerprints, cfg.data.max_megapixels)

    norm = f", norm {cfg.norm.name}" if takes_norm(cfg) else ""
    title = f"{cfg.model.name}{norm}, {task.label}"
    # The name contains the time, so it is fixed here. References to other keys are saved unresolved, so that they follow when a resumed
    # run changes a key.
    cfg.name = str(cfg.name)
    config = OmegaConf.to_yaml(cfg)
    if resume and resume.note:
        notes["resume"] = resume.note
    if resume and (folder / CONFIG).is_file() and (changes := _changes(cfg, folder)):
        notes["changed"] = "; ".join(changes)
    summary = run_summary(cfg, folder, task, training, stages, validation, network, trainer, resume) | switches | notes
    trust, channels, command = trust_of(cfg), channels_of_groups(network), resume_command(folder, _plain(cfg))
    return Run(folder, title, config, summary, task, module, data, validation, trainer, test_sets, resume, stop, trust, channels, command)


def _try_foreign_classes(cfg: DictConfig, network: nn.Module, block: Any, loss: nn.Module, task: Task, side: int) -> None:
    """Try classes of other packages on small images, and check that the files of the run can be loaded again.

    Raises:
        UserError: a class does not fulfil its contract (`irformer.training.contracts`).
    """
    found, needed = (
        f"scale {of.scale} and {channels} channels" for of, channels in ((network, network.in_channels), (task, task.channels))
    )
    if found != needed:
        raise UserError(f"model={cfg.model.name} has {found}, and task={task.name} needs {needed}: choose another task or other arguments")
    model, loss_node, task_node = _plain(cfg.model), _plain(cfg.loss), _plain(cfg.task)
    if foreign_targets(model) or model["_target_"] == "irformer.models.External":
        require_trainable(network, f"model={cfg.model.name}", side, block)
    if foreign_targets([model, task_node]):
        require_rebuildable(network, model, task_node, trust_of(cfg))
    if foreign_targets(loss_node):
        require_loss(loss, str(cfg.loss._target_), task.channels, side * task.scale)


def _plain(node: DictConfig) -> Any:
    return OmegaConf.to_container(node, resolve=True)


def _build_trainer(cfg: DictConfig, arguments: dict[str, Any], folder: Path, stop: StopSignals) -> lightning.Trainer:
    refuse_unsupported_with_fsdp(cfg)
    model: Any = OmegaConf.to_container(cfg.model, resolve=True)
    task: Any = OmegaConf.to_container(cfg.task, resolve=True)
    callbacks: list[lightning.Callback] = [
        LastCheckpoint(folder, cfg.checkpoint_every, partial(_record, model, task), stop),
        BestWeights(partial(_save_best, folder, model, task)),
    ]
    if cfg.optim.ema is not None:
        callbacks.append(Ema(cfg.optim.ema))
    for name, node in cfg.callbacks.items():
        if node is not None:
            callbacks.append(instantiate(node))
            require_callback(callbacks[-1], f"callbacks.{name}")
    callbacks.append(DueValidation())
    require_order(callbacks)
    return instantiate(
        arguments,
        precision=set_precision(cfg.trainer.precision, cfg.trainer.accelerator),
        val_check_interval=min(cfg.trainer.val_check_interval, cfg.trainer.max_steps),  # in steps; share_batch converts it
        log_every_n_steps=min(cfg.trainer.log_every_n_steps, cfg.trainer.max_steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_checkpointing=False,  # LastCheckpoint writes checkpoints
        default_root_dir=str(folder),
        callbacks=callbacks,
        logger=build_loggers(cfg.logger, folder, cfg.name),
        profiler=cfg.trainer.get("profiler") or Clock(),
        plugins=[CheckpointFiles()],
    )


def _save_best(
    folder: Path, model: dict[str, Any], task: dict[str, Any], weights: dict[str, Tensor], step: int, metrics: dict[str, float]
) -> None:
    save_weights(folder / BEST, weights, network_record(model, task["name"], step, metrics, task))


def _record(model: dict[str, Any], task: dict[str, Any], step: int) -> str:
    return network_record(model, task["name"], step, {}, task)


def _resume_checkpoint(cfg: DictConfig, folder: Path) -> Resume | None:
    """Return the checkpoint to resume from; None for a new run, and for one that was stopped before its first checkpoint."""
    if cfg.resume is None:
        if has_checkpoint(folder):
            raise UserError(f"{folder} already contains a run: resume={folder} resumes it, name=NAME starts another one")
        return None
    resume = find_resume(folder)
    if resume is not None and is_complete(folder, cfg.trainer.max_steps):
        raise UserError(
            f"{os.path.relpath(resume.file)} is already at step {resume.step}: set trainer.max_steps to a larger number to continue"
        )
    return resume


def _changes(cfg: DictConfig, folder: Path) -> list[str]:
    """Return the keys that differ between the saved configuration and that of the resumed run."""
    saved: Any = OmegaConf.to_container(read_saved_config(folder / CONFIG), resolve=True)
    now: Any = OmegaConf.to_container(cfg, resolve=True)
    return changed_keys(saved, now)
