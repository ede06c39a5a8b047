"""The keys that irformer reads itself, one class per part of configs/train.yaml and configs/benchmark.yaml."""

from functools import partial
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Interval, MinLen
from pydantic import AfterValidator

from irformer.schema.keys import Arguments, Key, Node
from irformer.schema.names import EXPECTED, is_folder_name

# For keys that affect where a run computes or what it displays, but not its result.
Free = partial(Key, result=False, resume="free")


def _without_null(text: str) -> str:
    if "\0" in text:
        raise ValueError("text without null characters")
    return text


Text = Annotated[str, MinLen(1), AfterValidator(_without_null)]
Names = Annotated[list[Text], MinLen(1)]
Share = Annotated[float, Gt(0)]
Count = Annotated[int, Interval(ge=1, le=1_000_000)]  # number of patches
Steps = Annotated[int, Interval(ge=1, le=1_000_000_000)]

_TEST_SETS = "a list of one or more names, such as test_sets=[Set5], or null"


def _folder_name(name: str) -> str:
    if not is_folder_name(name):
        raise ValueError(EXPECTED)
    return name


FolderName = Annotated[str, AfterValidator(_folder_name)]


class Paths:
    """Folders of data and runs."""

    data: Annotated[Text, Free("Folder that contains training and test sets.")]
    packed: Annotated[Text, Free("Folder of the packed stores written by `prepare_data.py pack`.")]
    runs: Annotated[Text, Free("Folder that contains the folders of all runs.")]


class BenchmarkPaths:
    """Folders of data and results."""

    data: Annotated[Text, Key("Folder that contains test sets.")]
    runs: Annotated[Text, Key("Folder that contains the folders of all runs; benchmarks are written to its subfolder `benchmark`.")]


class Data:
    """Training and validation data."""

    name: Annotated[Text, Key("Option that selected this group.")]
    sets: Annotated[
        Names | Annotated[dict[str, Share], MinLen(1)] | None,
        Key(
            "Training sets by name, or with shares, for example `{DIV2K: 0.5, WED: 0.5}`.",
            expects="a list of names, names with shares above 0, or null",
        ),
    ]
    path: Annotated[Text | None, Key("Folder of clean images, used instead of `sets`.", resume="named", identity=True)]
    lq_path: Annotated[
        Text | None, Key("Folder of degraded images with the same names; null degrades the clean ones.", resume="named", identity=True)
    ]
    draw: Annotated[
        Literal["images", "area"],
        Key("Within a set, `images` draws every image equally often, `area` in proportion to its pixels, like sub-images of equal size."),
    ]
    mirror_small: Annotated[bool, Key("Pad images smaller than the patch by reflection; false rejects them.")]
    packed: Annotated[bool, Free("Read from a packed store if there is one.")]
    val: Annotated[Text | None, Key("Test set or folder for validation; null means the task's first available set.", resume="named")]
    val_images: Annotated[
        Count | Literal["auto", "all"],
        Key(
            "Images of the validation set to validate on, evenly spaced; auto: as many as cost a tenth of the training in between.",
            resume="named",
            expects="a number of images, auto or all",
        ),
    ]
    allow_test_images: Annotated[list[Text], Free("Test sets (`B100`) or test images (`B100/101085`) that may be trained on.")]
    workers: Annotated[
        Annotated[int, Interval(ge=0, le=256)] | None, Free("Number of data-loading processes; null means 0 on the CPU, else up to 8.")
    ]
    cache_gb: Annotated[float, Interval(ge=0, le=65536), Free("Memory for decoded image files, in GiB over all processes.")]
    max_megapixels: Annotated[
        float, Interval(gt=0, le=100_000), Free("Largest accepted image, in megapixels; larger ones are rejected before decoding.")
    ]
    distinct: Annotated[Count | None, Key("Train repeatedly on the first N patches; null never repeats.")]


class Optim:
    """Optimizer, schedule and weight averaging."""

    lr: Annotated[float, Ge(0), Key("Learning rate.")]
    optimizer: Annotated[Node, Key("The optimizer's class and arguments.")]
    ema: Annotated[Annotated[float, Interval(ge=0, lt=1)] | None, Key("Decay of the weight average (EMA) per step; null disables it.")]
    schedule: Annotated[Node, Key("Learning-rate schedule, as a factor per step.", resume="named")]


# Modes of torch.compile; true means the first.
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


class Trainer:
    """Arguments of `lightning.Trainer`, and `compile` and `channels_last`; add other arguments with `+trainer.KEY=VALUE`."""

    max_steps: Annotated[Steps, Key("Total number of optimizer steps.", resume="named")]
    accelerator: Annotated[Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"], Free("Type of device.")]
    devices: Annotated[
        Annotated[int, Interval(ge=-1, le=4096)] | list[Annotated[int, Ge(0)]] | Text,
        Free(
            "Number of devices, -1 for all, or a list of their indices.",
            expects="a number of devices, -1, auto or a list of indices",
        ),
    ]
    num_nodes: Annotated[int, Interval(ge=1, le=4096), Free("Number of machines.")]
    strategy: Annotated[
        Any,
        Free(
            "Distributed strategy: auto, ddp, ddp_spawn or fsdp.",
            expects="auto, ddp, ddp_spawn, fsdp or another Lightning strategy",
        ),
    ]
    precision: Annotated[str | int, Key("fp32, tf32, fp16 or bf16; auto means bf16 on GPUs that support it, else fp32.", resume="named")]
    deterministic: Annotated[bool | Literal["warn"], Key("Use only deterministic algorithms.", resume="named")]
    gradient_clip_val: Annotated[Annotated[float, Ge(0)] | None, Key("Maximum gradient norm; null disables clipping.", resume="named")]
    accumulate_grad_batches: Annotated[
        Count, Key("Batches accumulated per optimizer step; `batch_size` counts all of them.", resume="named")
    ]
    val_check_interval: Annotated[Steps, Key("Steps between validations.", resume="named")]
    log_every_n_steps: Annotated[Steps, Free("Steps between logged losses.")]
    compile: Annotated[
        bool | CompileMode,
        Free(
            "Compile the network's training steps by torch.compile, once for each patch size: true or one of its modes.",
            expects=f"true, false, {', '.join(get_args(CompileMode)[:-1])} or {get_args(CompileMode)[-1]}",
        ),
    ]
    channels_last: Annotated[
        bool, Free("Train on patches whose channels are adjacent in memory; for external networks; irformer's compute that way anyway.")
    ]
    benchmark: Annotated[
        bool | None,
        Free("Let cuDNN choose the fastest convolutions for each size by timing, on NVIDIA GPUs; null leaves PyTorch's setting."),
    ]


class Logger:
    """Loggers in addition to metrics.csv."""

    tensorboard: Annotated[bool, Free("Write TensorBoard files.")]
    wandb: Annotated[Node | None, Free("Log to Weights & Biases.")]


class Model(Node):
    """Keys of `model` that are not arguments of the network's class."""

    name: Annotated[Text, Key("Name of the network in tables and folders.")]
    checkpointing: Annotated[
        bool, Free("Save memory in training: recompute the activations of each group in the backward pass. Gradients are the same.")
    ]


class Train:
    """Keys of train.py."""

    name: Annotated[FolderName | int, Free("Name of the run and of its folder below `paths.runs`.", expects=EXPECTED)]
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1), Key("Seed of the initial weights, the samples and all other randomness.")]
    patch_size: Annotated[int, Interval(ge=2, le=65536), Key("Side of a training patch in LQ pixels; `task.scale` times as many in HQ.")]
    batch_size: Annotated[Count, Key("Number of patches per optimizer step, over all devices and accumulated batches.")]
    max_batch_per_device: Annotated[
        Count | None,
        Free("Maximum number of patches on a device at once; gradients of larger batches are accumulated."),
    ]
    progressive: Annotated[
        Arguments | None,
        Arguments("irformer.data.stages.Stages"),
        Key(
            "Patch and batch sizes by stage: `{steps: [...], patch_size: [...], batch_size: [...]}`.",
            expects="{steps: [...], patch_size: [...], batch_size: [...]} or null",
        ),
    ]
    mixup: Annotated[
        Arguments | None,
        Arguments("irformer.training.mixup.Mixup"),
        Key("Mixup of the patches in a batch: `{beta: 1.2, identity: true}`.", expects="{beta: ..., identity: ...} or null"),
    ]
    metrics: Annotated[
        dict[str, Node | Text | None],
        Key(
            "Further metrics by name, as `+metrics=[mae]` or `+metrics.edge._target_=my.pkg.EdgeError`; null removes one. "
            "`+metrics.weights=FOLDER` contains the weights that LPIPS and DISTS need.",
            expects="names with nodes or null",
        ),
    ]
    test_sets: Annotated[
        Names | None,
        Key(
            "Test sets or folders evaluated at the end; null means the task's default sets that are found.",
            resume="free",
            expects=_TEST_SETS,
        ),
    ]
    init_from: Annotated[
        Text | None,
        Key("Run folder or weights file with the initial weights, or hf://OWNER/REPO.", expects="a run's folder, a weights file, or null"),
    ]
    init_recipe: Annotated[Text | None, Key("Experiment that produces the weights for `init_from`, in fine-tuning recipes.")]
    resume: Annotated[Text | None, Free("Folder of a run to resume, or auto.", expects="a run's folder, auto, or null")]
    sweep: Annotated[
        FolderName | int | None,
        Free("Folder of the sweep below `paths.runs`, with -m.", expects=f"{EXPECTED}, or null"),
    ]
    trust: Annotated[list[Text], Free("Packages whose classes a resumed run or a weights file may name.")]
    checkpoint_every: Annotated[Steps, Free("Steps between saves of checkpoints/last.ckpt.")]
    paths: Annotated[Paths, Free("Folders of data and runs.")]
    task: Annotated[Node, Key("Degradation to restore, and evaluation protocol.")]
    data: Annotated[Data, Key("Training and validation data.")]
    norm: Annotated[Node, Key("Normalization of the network.")]
    model: Annotated[Model, Key("The network.")]
    loss: Annotated[Node, Key("The training loss.")]
    optim: Annotated[Optim, Key("Optimizer, schedule and weight averaging.")]
    trainer: Annotated[Trainer, Key("Steps, devices and precision.", resume="named")]
    callbacks: Annotated[
        dict[str, Node | None],
        Free("Callbacks by name; null removes one.", expects="names with nodes or null"),
    ]
    logger: Annotated[Logger, Free("Loggers in addition to metrics.csv.")]


class Benchmark:
    """Keys of benchmark.py."""

    checkpoint: Annotated[
        Text | Names | Annotated[dict[Text, Text], MinLen(1)],
        Key(
            "Run folder, weights file, hf://OWNER/REPO, `bicubic`, or `degraded` (the input itself); or several, as a list or with "
            "labels, for example `{ours: runs/a, HAT: HAT.pth}`.",
            expects="a path, bicubic or degraded, a list of them, or labels with paths",
        ),
    ]
    tasks: Annotated[
        Names | None,
        Key(
            "Tasks on which every fitting checkpoint is measured; null means `task`, or the task that each was trained for.",
            expects="a list of names, such as tasks=[sr_x2,sr_x4], or null",
        ),
    ]
    reference: Annotated[Text | None, Key("Checkpoint or published network whose differences to all other rows are added to the tables.")]
    ensemble: Annotated[bool, Key("Average over the eight flips and rotations of each image, as in published + rows.")]
    tile: Annotated[
        Annotated[int, Ge(8)] | Literal["auto", "off"],
        Key(
            "Side of overlapping tiles in LQ pixels; auto: only for images that do not fit into memory; off: never.",
            expects="a number of pixels, auto or off",
        ),
    ]
    overlap: Annotated[int, Interval(ge=0, le=65536), Key("Overlap of neighboring tiles in LQ pixels.")]
    memory: Annotated[
        Text | int | None,
        Key(
            "Bound for the memory of features, such as 2GB: exact results in bands of rows.", expects="an amount such as 2GB, auto, or null"
        ),
    ]
    padding: Annotated[
        Literal["network", "flip_always", "reflect_min"] | None,
        Key("Padding before the network instead of that of the task's protocol; short for `task.protocol.padding`."),
    ]
    save_images: Annotated[bool, Key("Write the restored images to images/TASK/SET/IMAGE/CHECKPOINT.png in the output folder.")]
    remeasure: Annotated[bool, Key("Measure test sets again whose results are already in the output folder.")]
    devices: Annotated[int, Interval(ge=1, le=4096), Key("Number of devices that share the images; the numbers are those of one.")]
    model: Annotated[
        dict[str, Any],
        Key(
            "Changes to the network's configuration, such as `+model.pixel_range=255` or `+model.norm=iln`.",
            expects="keys of the network with their values",
        ),
    ]
    metrics: Annotated[
        dict[str, Node | Text | None],
        Key(
            "Further metrics by name, as `+metrics=[mae]` or `+metrics.edge._target_=my.pkg.EdgeError`; null removes one. "
            "`+metrics.weights=FOLDER` contains the weights that LPIPS and DISTS need.",
            expects="names with nodes or null",
        ),
    ]
    test_sets: Annotated[
        Names | None,
        Key(
            "Test sets or folders; null means the task's default sets that are found.",
            expects=_TEST_SETS,
        ),
    ]
    trust: Annotated[list[Text], Key("Packages whose classes a weights file may name.")]
    device: Annotated[Text, Key("cpu, cuda, cuda:1, ...; auto uses a GPU if available.")]
    precision: Annotated[
        Literal["fp32", "bf16", "fp16", "int8", "int4", "fp16_safe"],
        Key(
            "Precision of the network: half precision, fake quantization, or `fp16_safe`: float16 in the residual branches, float32 in the "
            "stream."
        ),
    ]
    out: Annotated[Text | None, Key("Folder of results.json; null names it after checkpoint and task, below `paths.runs`/benchmark.")]
    paths: Annotated[BenchmarkPaths, Key("Folders of data and results.")]
    task: Annotated[
        Any,
        Key("Degradation to restore, and evaluation protocol; by default the task that the checkpoint was trained for.", expects="a task"),
    ]


SECTIONS = (Train, Benchmark, Paths, BenchmarkPaths, Data, Optim, Trainer, Logger)
