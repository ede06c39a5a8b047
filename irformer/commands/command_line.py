"""Argument parsers of the commands that do not use Hydra.

This module has no heavy imports: `irformer.entry` uses it first, so that `--help` and usage errors do not wait for torch. Commands that
take a configuration use Hydra's `key=value` instead.
"""

import argparse
import os
from pathlib import Path

from irformer.banded.budget import parse_bytes
from irformer.core.trust import add_trust_option
from irformer.datasets.origins import GROUPS
from irformer.errors import UserError

_RESTORED_NAMES = (
    "If INPUT or OUTPUT is a folder, images are written as PNG (--format): a.jpg becomes OUTPUT/a.png, and FOLDER/sub/a.jpg becomes "
    "OUTPUT/sub/a.png, or OUTPUT/FOLDER/sub/a.png if there are several INPUTs. Images whose names would collide keep their suffix: a.png "
    "and a.jpg become a.png.png and a.jpg.png. A quoted pattern such as 'photos/**/*.jpg' keeps the tree below photos."
)

_CHECKPOINT = "a run's folder, a weights file, the name of weights in the package, or hf://OWNER/REPO[@REVISION][/FILE]"

DEFAULT_CHECKPOINT = Path("swinir_tiny_iln_x2")
"""The checkpoint of restore.py if none is given: weights in the package."""

# Lines around the generated part of docs/protocols.md and docs/performance.md.
START, END = "<!-- table -->", "<!-- end of table -->"


def restore() -> argparse.ArgumentParser:
    """Return the parser of restore.py."""
    parser = argparse.ArgumentParser(
        description="Restore images, and all images in folders and their subfolders, one at a time. Inputs are never modified.",
        epilog=f"{_RESTORED_NAMES} 16-bit depth, gray and alpha are preserved; the same network restores alpha, as gray. EXIF orientation "
        "is applied; other EXIF data and the ICC profile are kept. If an image fails, it is reported and the others are restored. Ctrl-C "
        "stops after the current image. "
        "Exit status: 0 all images are restored or existed already, 1 nothing was restored, 3 some failed, 130 interrupted.",
    )
    parser.add_argument("inputs", type=Path, nargs="+", metavar="INPUT", help="image file, folder, or quoted pattern")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="image file for a single image, folder otherwise")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=DEFAULT_CHECKPOINT,
        help=f"{_CHECKPOINT}. Default: {DEFAULT_CHECKPOINT}, a small network in the package that doubles the size",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; auto (the default) uses a GPU if available")
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs; otherwise they are skipped")
    written = parser.add_argument_group("output files")
    written.add_argument(
        "--format",
        choices=("png", "jpg", "webp", "tif", "bmp", "same"),
        default="png",
        help="format of the images in a folder (default png); same: that of each input",
    )
    written.add_argument("--suffix", type=_name_part, default="", help="added to the names in a folder: _x2 turns a.jpg into a_x2.png")
    written.add_argument(
        "--quality", type=_quality, metavar="N", help="1 to 100, for jpg (default 95) and webp (default lossless); the others are lossless"
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--tile",
        type=_tile,
        default="auto",
        metavar="auto|N|off",
        help="side of the tiles in input pixels, which bounds memory; auto (the default) restores the whole image, and only if memory does "
        "not suffice, halves the tile until it does; off never uses tiles",
    )
    network.add_argument(
        "--memory",
        type=_memory,
        metavar="SIZE|auto",
        help="restore whole images within this bound, such as 2GB, in bands instead of tiles: the same result as without a bound; auto "
        "takes 80 %% of the memory that is free. For irformer's own networks",
    )
    network.add_argument("--overlap", type=_overlap, default=32, metavar="N", help="overlap of tiles in input pixels (default 32)")
    network.add_argument("--ensemble", action="store_true", help="average over 8 flips and rotations: slightly better, 8 times slower")
    network.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16", "fp16_safe"),
        default="fp32",
        help="precision of the network (default fp32); fp16_safe keeps the residual stream in fp32",
    )
    network.add_argument(
        "--backend",
        choices=("torch", "onnxruntime", "openvino"),
        default="torch",
        help="torch (default), or a runtime for the CPU, which reads an ONNX file that is written beside the checkpoint on first use",
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        default=2,
        metavar="N",
        help="threads that read images ahead, and as many that write them (default 2); each holds an image in memory",
    )
    add_trust_option(parser)
    return parser


def export() -> argparse.ArgumentParser:
    """Return the parser of export.py."""
    parser = argparse.ArgumentParser(
        description="Export the network of a checkpoint to a file that irformer, the official code or another runtime loads, or to a "
        "folder for a hub."
    )
    parser.add_argument("checkpoint", type=Path, help=_CHECKPOINT)
    parser.add_argument("out", type=Path, help="the file to write, or the folder with --format hub")
    parser.add_argument(
        "--format",
        choices=("safetensors", "official", "hub", "onnx", "pt2"),
        help="safetensors: irformer's own format, with the configuration inside; official: the layout of the official code, as .pth or "
        ".safetensors by the suffix of OUT; hub: a folder with model.safetensors, a model card (README.md) and the license; onnx: a graph "
        "for images of any size, compared with the network in ONNX Runtime before it is written; pt2: the same as a program of "
        "torch.export. Default: onnx or pt2 if OUT ends in .onnx or .pt2, otherwise safetensors",
    )
    parser.add_argument(
        "--fp16", action="store_true", help="onnx, pt2: weights and images in float16; statistics and softmax stay in float32"
    )
    parser.add_argument("--opset", type=int, choices=range(18, 24), metavar="N", help="onnx: version of the operators, 18 (default) to 23")
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="hub: results.json files of benchmarks for the card. Default: the results of the run",
    )
    parser.add_argument(
        "--license", metavar="NAME", help="hub, onnx, pt2: SPDX identifier of the license of the weights, such as Apache-2.0"
    )
    parser.add_argument("--license-file", type=Path, metavar="FILE", help="hub: the text of the license, copied to LICENSE")
    parser.add_argument(
        "--training-patch-size",
        type=int,
        metavar="PIXELS",
        help="official SwinIR and DRCT: size of the attention masks in the file, as in the option of SwinIR's test script: 48 or 64 for "
        "classical super-resolution. Default: 64; 128 for denoising, 126 for JPEG artifacts",
    )
    add_trust_option(parser)
    return parser


def inspect() -> argparse.ArgumentParser:
    """Return the parser of inspect.py."""
    parser = argparse.ArgumentParser(
        description="Show what a checkpoint is, how large its features are on photos that come with scikit-image, and which precision is "
        "safe for it: safe in fp16, safe with fp32 residual stream (fp16_safe), or bf16 only, with the numbers that decide.",
    )
    parser.add_argument("checkpoint", type=Path, help=_CHECKPOINT)
    parser.add_argument("--size", type=_positive, default=64, metavar="N", help="side of the photos in input pixels (default 64)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to this file; - prints it instead of the tables")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also write a self-contained HTML page with figures")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; auto (the default) uses a GPU if available")
    add_trust_option(parser)
    return parser


def compare() -> argparse.ArgumentParser:
    """Return the parser of compare.py."""
    parser = argparse.ArgumentParser(
        description="Compare runs, or the networks of benchmarks: means and standard deviations over seeds, and paired differences between "
        "arms (runs that differ only in the seed belong to one arm) with 95 % intervals over seeds and images, with Holm's correction "
        "beyond two arms. Runs that cannot be read are reported and skipped."
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="folder of a sweep, a run or a benchmark; all below it are read"
    )
    parser.add_argument("--metric", help="psnr_y, ssim_y, ...; default: the first metric of the task")
    parser.add_argument("--test-set", metavar="NAME", help="use only this test set")
    parser.add_argument(
        "--by", metavar="KEY", help="compare only arms that differ in this key or group (norm, optim.lr) and in nothing else"
    )
    parser.add_argument(
        "--reference", metavar="ARM", help="show only differences to this arm, given by its label or by a value that only it has"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="also write compare.md, .tex, .csv and .json and report.html to this folder"
    )
    return parser


def reproduce() -> argparse.ArgumentParser:
    """Return the parser of reproduce.py; it trains, so its options are `key=value` as in train.py."""
    parser = argparse.ArgumentParser(
        description="Reproduce claims of the i-LN paper (arXiv 2504.06629): train the missing arms, and write a page with the verdict.",
        epilog="Examples: reproduce.py list; reproduce.py control figure1 budget=cpu jobs=2; reproduce.py table1 seeds=5 --print. "
        "budget=cpu takes tens of minutes per claim on two cores, gpu tens of minutes on a GPU, paper 300,000 iterations per arm. "
        "budget=demo takes minutes and only knows figure1. Finished arms are never trained again, and interrupted ones are resumed.",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="NAME|KEY=VALUE",
        help="list, or names of claims; budget=cpu|gpu|paper|demo (default cpu), jobs=N arms at once, seeds=N per arm, "
        "out=FOLDER of pages and records (default docs/results), and overrides of train.py for all arms",
    )
    parser.add_argument("--print", action="store_true", help="print the missing arms as commands of train.py, and train nothing")
    return parser


def speed() -> argparse.ArgumentParser:
    """Return the parser of speed.py."""
    parser = argparse.ArgumentParser(
        description="Measure the speed of irformer on this machine, against the official networks with the same weights (from spandrel) "
        "and against what the machine can do. Alternatives take turns in one process; times are medians."
    )
    measured = argparse.ArgumentParser(add_help=False)
    measured.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to this file")
    measured.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write speed.md, speed.json and figures to this folder (default for all and scaling: runs/speed)",
    )
    measured.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto (the default) uses a CUDA GPU if available"
    )
    measured.add_argument("--threads", type=_positive, help="threads of PyTorch's operators (default: PyTorch's own choice)")
    measured.add_argument("--rounds", type=_positive, help="measurements of each alternative (default 10, 3 with --quick)")
    measured.add_argument("--quick", action="store_true", help="smaller sizes and 3 rounds: to see that everything works, not to cite")
    measured.add_argument("--no-profile", action="store_true", help="do not list the operators that take the time")
    compared = argparse.ArgumentParser(add_help=False)
    compared.add_argument("--norms", nargs="+", metavar="NAME", help="norms to measure (default: ln iln; norm: all)")
    compared.add_argument("--compile", action="store_true", help="measure irformer's networks compiled as well; compiling takes minutes")
    networks = argparse.ArgumentParser(add_help=False)
    networks.add_argument("--models", nargs="+", metavar="NAME", help="only these models")
    networks.add_argument(
        "--precision",
        nargs="+",
        choices=("fp32", "bf16"),
        help="bf16 means autocast (default: fp32 on the CPU, both on a GPU; loop: bf16 on a GPU)",
    )
    networks.add_argument("--scale", type=_positive, help="upscaling factor (default: 2; restormer keeps the size)")
    steps = argparse.ArgumentParser(add_help=False)
    steps.add_argument("--batch", type=_positive, help="patches in a batch (default: depends on the model)")
    steps.add_argument("--patch", type=_positive, help="patch size in pixels (default: depends on the model)")
    what = parser.add_subparsers(dest="what", required=True)

    everything = what.add_parser("all", parents=[measured], help="all of the following, written to one folder")
    everything.add_argument("--compile", action="store_true", help="measure irformer's networks compiled as well; compiling takes minutes")
    everything.add_argument(
        "--page", type=Path, metavar="FILE", help=f"also write the results between the lines {START} and {END} of a page"
    )
    everything.set_defaults(norms=None, models=None, precision=None, scale=None, batch=None, patch=None, size=None, seconds=None)
    what.add_parser("train", parents=[networks, compared, steps, measured], help="one training step: forward, loss, backward, optimizer")
    infer = what.add_parser("infer", parents=[networks, compared, measured], help="restoring one image")
    infer.add_argument("--size", type=_positive, nargs="+", help="height and width of the image in pixels (default: depends on the model)")
    infer.add_argument(
        "--backends", nargs="+", choices=("onnxruntime", "openvino"), default=(), help="also measure exported ONNX files in these runtimes"
    )
    what.add_parser(
        "norm", parents=[compared, measured], help="norms by themselves against F.layer_norm, and against each other in a network"
    )
    what.add_parser("loop", parents=[networks, steps, measured], help="whole steps of the training loop at its defaults against bare steps")
    memory = what.add_parser("memory", parents=[measured], help="peak memory of restoring an image, in a process for each network")
    memory.add_argument("--norms", nargs="+", metavar="NAME", help="norms to measure (default: ln iln)")
    memory.add_argument("--size", type=_positive, nargs="+", help="height and width of the image in pixels (default: 512)")
    of_networks = argparse.ArgumentParser(add_help=False)
    of_networks.add_argument("--models", nargs="+", metavar="NAME", help="only these models")
    of_networks.add_argument("--scale", type=_positive, help="upscaling factor (default: 2; restormer keeps the size)")
    of_networks.add_argument("--norms", nargs="+", metavar="NAME", help="norms to measure (default: ln iln)")
    of_networks.add_argument(
        "--size",
        type=_positive,
        nargs="+",
        help="height and width of the images in pixels (default: bounded 512 1024; onnx 128 256 384 512)",
    )
    of_networks.add_argument(
        "--page", type=Path, metavar="FILE", help=f"also write the results between the lines {START} and {END} of a page"
    )
    bound = argparse.ArgumentParser(add_help=False)
    bound.add_argument("--memory", default="400MB", metavar="SIZE", help="the bound (default: 400MB)")
    what.add_parser(
        "bounded", parents=[of_networks, bound, measured], help="restoring within a memory bound and at once: difference, peaks, times"
    )
    what.add_parser("onnx", parents=[of_networks, measured], help="agreement of exported ONNX files with their networks, in fp32 and fp16")
    what.add_parser("deployment", parents=[of_networks, bound, measured], help="bounded and onnx")
    what.add_parser("startup", parents=[measured], help="seconds from a command to its help, its error message or its first training step")
    what.add_parser("scaling", parents=[measured], help="cost against image size, width, depth and batch, drawn in one figure")
    data = what.add_parser(
        "data", parents=[measured], help="training samples per second on one core: packed store, sub-image files, whole image files"
    )
    data.add_argument("--seconds", type=float, help="CPU time of each measurement in seconds (default 3, 0.5 with --quick)")
    loader = what.add_parser("data-memory", help="memory of all processes while reading many batches")
    loader.add_argument("--batches", type=int, default=20_000, help="batches of 16 samples (default 20,000)")
    loader.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    loader.add_argument("--files", action="store_true", help="read image files and cache them in memory, instead of the packed store")
    return parser


def _tile(text: str) -> int | str:
    if text in ("auto", "off"):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: expected auto, off, or a number of pixels")
    return _positive(text)


def _memory(text: str) -> str:
    try:
        parse_bytes(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _overlap(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: expected a number of pixels, 0 or more")
    return int(text)


def _quality(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 1 to 100")
    return int(text)


def _name_part(text: str) -> str:
    if any(separator in text for separator in ("/", "\\", "\0")):
        raise argparse.ArgumentTypeError(f"{text}: expected part of a file name, without a path")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a positive number")
    return number


def protocols() -> argparse.ArgumentParser:
    """Return the parser of protocols.py."""
    parser = argparse.ArgumentParser(
        description="Evaluate the baseline of every task on the test sets found in IRFORMER_DATA (or data/), and write the table between "
        f"the lines {START} and {END} of a page."
    )
    parser.add_argument("page", type=Path, nargs="?", default=Path("docs/protocols.md"), help="default: docs/protocols.md")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="only these tasks; print the table and do not write the page")
    return parser


def configuration() -> argparse.ArgumentParser:
    """Return the parser of configuration.py."""
    parser = argparse.ArgumentParser(description="Write the reference of all configuration keys.")
    parser.add_argument("page", type=Path, nargs="?", default=Path("docs/configuration.md"), help="default: docs/configuration.md")
    return parser


def tables() -> argparse.ArgumentParser:
    """Return the parser of tables.py."""
    parser = argparse.ArgumentParser(
        description="Write the tables of all models, norms, tasks and weights (models.md, norms.md, tasks.md, results/weights.md) from the "
        "configurations, the classes, and the results in docs/results."
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs"), help="where the pages are written (default: docs)")
    return parser


def prepare_data() -> argparse.ArgumentParser:
    """Return the parser of prepare_data.py."""
    parser = argparse.ArgumentParser(description="List, download, pack and verify public data sets.")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("IRFORMER_DATA") or "data"),
        help="data folder (default: the environment variable IRFORMER_DATA, or data)",
    )
    packed = argparse.ArgumentParser(add_help=False)
    packed.add_argument("--packed", type=Path, metavar="FOLDER", help="folder of the packed stores (default: packed below the data folder)")
    names = argparse.ArgumentParser(add_help=False)
    names.add_argument("names", nargs="+", metavar="NAME", help=f"a set, or one of {', '.join(GROUPS)}")
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("names", nargs="+", metavar="NAME", help="a set, a group of sets, or a folder of clean images")
    own.add_argument("--lq", type=Path, metavar="FOLDER", help="degraded images for a folder of clean ones")
    commands = parser.add_subparsers(dest="do", required=True)
    commands.add_parser("list", parents=[data, packed], help="list all known sets: purpose, size, terms, what is on disk")
    download = commands.add_parser("download", parents=[names, data], help="download sets, verify their checksums, extract them")
    download.add_argument(
        "--scales",
        type=int,
        nargs="+",
        default=[],
        choices=[2, 3, 4],
        help="also download official LR images at these scales (DIV2K); otherwise they are generated on the fly, identical to the byte",
    )
    download.add_argument("--accept-md5", default="", metavar="MD5", help="checksum to accept in addition to the published one")
    commands.add_parser(
        "pack", parents=[own, data, packed], help="decode training sets once into packed stores, which training reads faster"
    )
    commands.add_parser("verify", parents=[own, data, packed], help="decode every file; check counts, names, sizes and the packed store")
    return parser
