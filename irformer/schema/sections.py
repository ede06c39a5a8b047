"""The keys that irformer reads itself, one class for each part of configs/train.yaml and configs/benchmark.yaml."""

from functools import partial
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, MinLen
from pydantic import AfterValidator

from irformer.schema.keys import Arguments, Key, Model, Node
from irformer.schema.names import EXPECTED, is_folder_name

# Of keys that say where a run computes or what it shows.
Free = partial(Key, result=False, resume="free")


def _without_null(text: str) -> str:
    if "\0" in text:
        raise ValueError("text without null characters")
    return text


Text = Annotated[str, MinLen(1), AfterValidator(_without_null)]
Names = Annotated[list[Text], MinLen(1)]
Share = Annotated[float, Gt(0)]
Count = Annotated[int, Interval(ge=1, le=1_000_000)]  # of patches
Steps = Annotated[int, Interval(ge=1, le=1_000_000_000)]

_TEST_SETS = "a list of one or more names, as test_sets=[Set5], or null"


def _folder_name(name: str) -> str:
    if not is_folder_name(name):
        raise ValueError(EXPECTED)
    return name


FolderName = Annotated[str, AfterValidator(_folder_name)]


class Paths:
    """Where data is read and runs are written."""

    data: Annotated[Text, Free("Folder below which training and test sets are looked for.")]
    packed: Annotated[Text, Free("Folder of the packed stores that `prepare_data.py pack` writes.")]
    runs: Annotated[Text, Free("Folder that holds the runs' folders.")]


class BenchmarkPaths:
    """Where data is read and results are written."""

    data: Annotated[Text, Key("Folder below which test sets are looked for.")]
    runs: Annotated[Text, Key("Folder that holds the runs' folders; benchmarks go to its subfolder `benchmark`.")]


class Data:
    """What a run trains on and is validated on."""

    name: Annotated[Text, Key("Word that selected this group.")]
    sets: Annotated[
        Names | Annotated[dict[str, Share], MinLen(1)] | None,
        Key(
            "Training sets by name, or their shares as `{DIV2K: 0.5, WED: 0.5}`.",
            expects="a list of names, names with shares above 0, or null",
        ),
    ]
    path: Annotated[Text | None, Key("Folder of clean images, used instead of `sets`.", resume="named", identity=True)]
    lq_path: Annotated[
        Text | None, Key("Folder of degraded images of the same names; null degrades the clean ones.", resume="named", identity=True)
    ]
    draw: Annotated[
        Literal["images", "area"],
        Key("Within a set, `images` draws every image equally often, `area` in proportion to its pixels, as cutting sub-images does."),
    ]
    mirror_small: Annotated[bool, Key("Extend images smaller than the patch by reflection; false refuses them.")]
    packed: Annotated[bool, Free("Read from a packed store if there is one.")]
    val: Annotated[Text | None, Key("Test set or folder for validation; null takes the task's first that is found.", resume="named")]
    allow_test_images: Annotated[list[Text], Free("Test sets (`B100`) or test images (`B100/101085`) that may be trained on.")]
    workers: Annotated[
        Annotated[int, Interval(ge=0, le=256)] | None, Free("Processes that read data; null means 0 on the CPU, else up to 8.")
    ]
    cache_gb: Annotated[float, Interval(ge=0, le=65536), Free("Memory for decoded image files, in GiB over all readers.")]
    max_megapixels: Annotated[
        float, Interval(gt=0, le=100_000), Free("Largest image that is read, in megapixels; larger ones are refused before decoding.")
    ]
    distinct: Annotated[Count | None, Key("Train on the first so many patches over and over; null never repeats.")]


class Optim:
    """Optimizer, schedule and averaged weights."""

    lr: Annotated[float, Ge(0), Key("Learning rate.")]
    optimizer: Annotated[Node, Key("The optimizer's class and arguments.")]
    ema: Annotated[Annotated[float, Interval(ge=0, lt=1)] | None, Key("Decay of the averaged weights per step; null does not average.")]
    schedule: Annotated[Node, Key("Factor of the learning rate over the steps.", resume="named")]


class Trainer:
    """Arguments of `lightning.Trainer`. Any other of its arguments can be added with `+trainer.KEY=VALUE`."""

    max_steps: Annotated[Steps, Key("Optimizer steps of the whole run.", resume="named")]
    accelerator: Annotated[Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"], Free("Kind of device.")]
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
            "How devices share the work: auto, ddp, ddp_spawn or fsdp.",
            expects="auto, ddp, ddp_spawn, fsdp or another strategy of Lightning",
        ),
    ]
    precision: Annotated[str | int, Key("fp32, tf32, fp16 or bf16; auto means bf16 on GPUs that have it, else fp32.", resume="named")]
    deterministic: Annotated[bool | Literal["warn"], Key("Use only deterministic algorithms.", resume="named")]
    gradient_clip_val: Annotated[Annotated[float, Ge(0)] | None, Key("Largest norm of the gradient; null does not clip.", resume="named")]
    accumulate_grad_batches: Annotated[Count, Key("Batches accumulated in one step of the global batch size.", resume="named")]
    val_check_interval: Annotated[Steps, Key("Steps between two validations.", resume="named")]
    log_every_n_steps: Annotated[Steps, Free("Steps between two logged losses.")]


class Logger:
    """Where numbers are logged, besides metrics.csv."""

    tensorboard: Annotated[bool, Free("Write TensorBoard files.")]
    wandb: Annotated[Node | None, Free("Log to Weights & Biases.")]


class Train:
    """Keys of train.py."""

    name: Annotated[FolderName | int, Free("Name of the run and of its folder below `paths.runs`.", expects=EXPECTED)]
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1), Key("Seed of the weights, the samples and everything else that is random.")]
    patch_size: Annotated[int, Interval(ge=2, le=65536), Key("Side of the training patch in LQ pixels; HQ: `task.scale` times as long.")]
    batch_size: Annotated[Count, Key("Patches in one optimizer step, over all devices and accumulated batches.")]
    max_batch_per_device: Annotated[
        Count | None,
        Free("Largest number of patches on a device at once; larger shares are accumulated."),
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
        Key("Blend patches of a batch: `{beta: 1.2, identity: true}`.", expects="{beta: ..., identity: ...} or null"),
    ]
    metrics: Annotated[
        dict[str, Node | None],
        Key(
            "Further metrics by name, as `+metrics=[mae]` or `+metrics.edge._target_=my.pkg.EdgeError`; null removes one.",
            expects="names with nodes or null",
        ),
    ]
    test_sets: Annotated[
        Names | None,
        Key(
            "Test sets or folders measured at the end; null means the task's usual ones that are found.",
            resume="free",
            expects=_TEST_SETS,
        ),
    ]
    init_from: Annotated[
        Text | None, Key("Run folder or weights file that training starts from.", expects="a run's folder, a file of weights, or null")
    ]
    init_recipe: Annotated[Text | None, Key("Experiment that makes the weights for `init_from`, in recipes that fine-tune.")]
    resume: Annotated[Text | None, Free("Folder of a run to resume, or auto.", expects="a run's folder, auto, or null")]
    sweep: Annotated[
        FolderName | int | None,
        Free("Folder of the sweep below `paths.runs`, with -m.", expects=f"{EXPECTED}, or null"),
    ]
    trust: Annotated[list[Text], Free("Packages whose classes a resumed run or a file of weights may name.")]
    checkpoint_every: Annotated[Steps, Free("Steps between two saves of checkpoints/last.ckpt.")]
    paths: Annotated[Paths, Free("Where data is read and runs are written.")]
    task: Annotated[Node, Key("What is restored, and how results are measured.")]
    data: Annotated[Data, Key("What a run trains on and is validated on.")]
    norm: Annotated[Node, Key("Normalization of the network.")]
    model: Annotated[Model, Key("The network.")]
    loss: Annotated[Node, Key("What training minimizes.")]
    optim: Annotated[Optim, Key("Optimizer, schedule and averaged weights.")]
    trainer: Annotated[Trainer, Key("Steps, devices and precision.", resume="named")]
    callbacks: Annotated[
        dict[str, Node | None],
        Free("What accompanies training, by name; null removes one.", expects="names with nodes or null"),
    ]
    logger: Annotated[Logger, Free("Where numbers are logged, besides metrics.csv.")]


class Benchmark:
    """Keys of benchmark.py."""

    checkpoint: Annotated[Text, Key("Run folder, weights file, `bicubic`, or `degraded` (the input itself).")]
    model: Annotated[
        dict[str, Any],
        Key(
            "Changes to the network's configuration, as `+model.pixel_range=255` or `+model.norm=iln`.",
            expects="keys of the network with their values",
        ),
    ]
    metrics: Annotated[
        dict[str, Node | None],
        Key(
            "Further metrics by name, as `+metrics=[mae]` or `+metrics.edge._target_=my.pkg.EdgeError`; null removes one.",
            expects="names with nodes or null",
        ),
    ]
    test_sets: Annotated[
        Names | None,
        Key(
            "Test sets or folders; null means the task's usual ones that are found.",
            expects=_TEST_SETS,
        ),
    ]
    trust: Annotated[list[Text], Key("Packages whose classes a file of weights may name.")]
    device: Annotated[Text, Key("cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.")]
    out: Annotated[Text | None, Key("Folder for results.json; null names one below `paths.runs`/benchmark by checkpoint and task.")]
    paths: Annotated[BenchmarkPaths, Key("Where data is read and results are written.")]
    task: Annotated[
        Any,
        Key("What is restored, and how it is measured; left out, the task that the checkpoint was trained for.", expects="a task"),
    ]


SECTIONS = (Train, Benchmark, Paths, BenchmarkPaths, Data, Optim, Trainer, Logger)
