"""Write the tables of all models, norms, tasks and weights: python scripts/tables.py [FOLDER].

Every cell is read from a configuration file or a docstring, or measured on the object that the configuration builds.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
from torch import Tensor, nn

from irformer.commands import command_line
from irformer.commands.weights_page import weights_page
from irformer.commands.weights_picture import write_picture
from irformer.config.compose import compose, instantiate, model_config, norm_config
from irformer.core.files import write_atomically
from irformer.core.folders import CONFIGS
from irformer.datasets.origins import ORIGINS
from irformer.models.flops import count_flops
from irformer.norms import NormScheme
from irformer.schema.reference import read_yaml, words
from irformer.schema.roles import network_arguments
from irformer.tasks.degradations import Downscale, FromFiles, GaussianNoise, Jpeg
from irformer.tasks.task import Task

WIDTH, HEIGHT = 1280, 720
_DOCS = Path("docs")  # with the results of benchmarks

# Official code of the networks by module name. Papers are read from the modules' docstrings.
# A level or scale of families of tasks that no published task has, to find it in the table.
_EXAMPLE = 7
_CODE = {
    "swinir": "https://github.com/JingyunLiang/SwinIR",
    "hat": "https://github.com/XPixelGroup/HAT",
    "drct": "https://github.com/ming053l/DRCT",
    "restormer": "https://github.com/swz30/Restormer",
}
# Networks for tasks that keep the image size, although their class can also upscale.
_SAME_SIZE = ("swinir_jpeg",)

_MODELS = f"""# Models

This page is generated: `make tables` (`python scripts/tables.py`) writes it from the configuration files and the classes.

`model=NAME` selects a network, and every argument of its class is a key (`model.embed_dim=96`); see [configuration](configuration.md).
Any [norm](norms.md) fits any model. The smallest ones, `*_tiny`, are for tests and first runs and have no published counterpart.

%s

- **scale**: the scale at which parameters and FLOPs are counted, with three input channels and `norm=ln`. 1 means a network that keeps
  the size, as for denoising.
- **FLOPs**: floating-point operations of one forward pass with an output of {WIDTH}x{HEIGHT} pixels, as `torch.utils.flop_counter` counts
  them: matrix products and convolutions, two operations for each multiply-add. Papers often print multiply-adds, half of this number.
  Every network here costs the same for each tile of its size multiple, so `make tables` counts one and two tiles and extrapolates to the
  padded image; the result equals a count at full size.
- **size multiple**: the network pads its input by reflection to this multiple and crops the output.
- **test padding**: how published numbers were measured; [protocols](protocols.md) describes both rules.
"""

_NORMS = """# Norms

This page is generated: `make tables` (`python scripts/tables.py`) writes it from the configuration files and the classes.

`norm=NAME` selects a norm for any [model](models.md). In every block, `y, scale = norm(x)` and `x = x + scale * branch(y)`.

%s

- **normalizes over**: the values that an output depends on, besides its own input; measured in training mode by changing one value of
  the input.
- **scale**: the factor for the output of the residual branch.
- **parameters**: learned values of one norm of C channels.
- **ends**: the norm after the patch embedding and before the last convolution of the body: `same` as in the blocks, `ln`, `affine`
  (weight and bias, no statistics) or `none`. `norm.ends=...` changes it.
- **standardized input**: whether the input is divided by the RGB standard deviation of DIV2K; `norm.standardize_input=...` changes it.

A comparison of two norms should move one thing at a time. `norm=iln` and `norm=ln` differ in the blocks, the ends and the input, as the
official networks do; `norm=ln norm.ends=affine norm.standardize_input=true` is the control between them.
"""

_TASKS = """# Tasks

This page is generated: `make tables` (`python scripts/tables.py`) writes it from the configuration files and the classes.

`task=NAME` selects a task: how images are degraded, and how results are measured. [Protocols](protocols.md) gives the sources of the
rules. Every rule is a key (`task.protocol.border=0`), and results.json records the rules in force.

%s

The first metric decides which checkpoint is the best. A benchmark without `test_sets=` uses those of the test sets that it finds;
[data](data.md) lists where to get them.
"""


def tables() -> None:
    """Write models.md, norms.md, tasks.md, results/weights.md and restored.png: python scripts/tables.py [FOLDER]."""
    folder: Path = command_line.tables().parse_args().folder
    pages = {"models": models_page, "norms": norms_page, "tasks": tasks_page, "results/weights": lambda: weights_page(_DOCS)}
    for name, page in pages.items():
        text, file = page(), folder / f"{name}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda temporary, text=text: temporary.write_text(text, encoding="utf-8"))  # type: ignore[misc]
        print(f"wrote {file}")
    write_picture(folder / "restored.png")
    print(f"wrote {folder / 'restored.png'}")


def models_page(known_flops: Mapping[str, str] | None = None) -> str:
    """Return the text of docs/models.md.

    Args:
        known_flops: known cells of the FLOPs column by model, which are not counted again.
    """
    header = ["model", "network", "scale", "parameters", "FLOPs", "size multiple", "test padding", "source"]
    rows = [_model_row(name, (known_flops or {}).get(name)) for name in words("model", CONFIGS)]
    return _MODELS % _table(header, rows, right=(3, 4))


def norms_page() -> str:
    """Return the text of docs/norms.md."""
    header = ["norm", "class", "description", "normalizes over", "scale", "parameters", "ends", "standardized input"]
    return _NORMS % _table(header, [_norm_row(name) for name in words("norm", CONFIGS)])


def tasks_page() -> str:
    """Return the text of docs/tasks.md."""
    header = ["task", "degradation in training", "in tests", "scale", "channels", "border", "metrics", "test sets"]
    return _TASKS % _table(header, [_task_row(name) for name in words("task", CONFIGS)])


def _model_row(name: str, known_flops: str | None) -> list[str]:
    if "???" in (CONFIGS / "model" / f"{name}.yaml").read_text(encoding="utf-8"):  # the command line selects the network
        return [f"`{name}`", _comment("model", name), *["any"] * 5, ""]
    scale = 1 if name in _SAME_SIZE else None
    node = network_arguments(model_config(name, "ln", scale, 3))
    network: Any = hydra.utils.instantiate(node, _convert_="all").eval()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    flops = known_flops or f"{count_flops(network, HEIGHT // network.scale, WIDTH // network.scale) / 1e9:,.0f} G"
    return [
        f"`{name}`",
        _comment("model", name),
        str(network.scale),
        f"{parameters / 1e6:.2f} M",
        flops,
        str(network.size_multiple),
        f"`{network.test_padding}`",
        _source(type(network)),
    ]


def _source(kind: type) -> str:
    """Return links to the paper, from the docstring of the class's module, and to the official code."""
    doc = " ".join((sys.modules[kind.__module__].__doc__ or "").split())
    paper = re.search(r'\((.*?), ".*?", (.*?), arXiv (\d+\.\d+)\)', doc)
    assert paper is not None, f"{kind.__module__}: the docstring names no paper"
    authors, venue, number = paper.groups()
    return f"[{authors}, {venue}](https://arxiv.org/abs/{number}), [code]({_CODE[kind.__module__.rpartition('.')[2]]})"


def _norm_row(name: str) -> list[str]:
    scheme: NormScheme = instantiate(norm_config(name))
    kind: Any = getattr(scheme.block, "func", scheme.block)
    return [
        f"`{name}`",
        f"`{kind.__name__}`",
        re.sub(r"arXiv (\d+\.\d+)", r"[arXiv \1](https://arxiv.org/abs/\1)", _summary(kind).replace("*", "\\*")),
        normalizes_over(scheme.block(4)),
        _scale(scheme.block(4)),
        _parameters(scheme),
        f"`{scheme.ends}`",
        "yes" if scheme.standardize_input else "no",
    ]


def normalizes_over(norm: nn.Module) -> str:
    """Describe the input values that an output of a norm depends on, besides its own input.

    Args:
        norm: a norm of four channels in training mode.
    """
    x = torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    changed = x.clone()
    changed[0, 1, 1, 2] += 1
    norm = norm.double()
    with torch.no_grad():
        moved = norm(changed)[0] != norm(x)[0]
    image, token, channel = moved[0, 0, 0, 0], moved[0, 1, 1, 0], moved[0, 0, 0, 2]
    if moved[1].any():
        return "batch and tokens of a channel" if not image else "everything"
    if image:
        return "tokens and channels of an image"
    if token:
        return "channels of a token"
    return "tokens of a channel of an image" if channel else "nothing"


def _scale(norm: nn.Module) -> str:
    with torch.no_grad():
        scale: Tensor | None = norm(torch.randn(2, 3, 3, 4))[1]
    if scale is None:
        return "none"
    learned = any(scale.data_ptr() == parameter.data_ptr() for parameter in norm.parameters())
    if learned:
        return "learned vector [C]" if scale.numel() > 1 else "learned number"
    return "standard deviation of the image"


def _parameters(scheme: NormScheme) -> str:
    few, many = (sum(parameter.numel() for parameter in scheme.block(dim).parameters()) for dim in (8, 16))
    slope = (many - few) // 8
    rest = few - 8 * slope
    terms = [f"{slope if slope > 1 else ''}C"] if slope else []
    return " + ".join([*terms, str(rest)] if rest or not terms else terms)


def _task_row(name: str) -> list[str]:
    key = _level_of(name)
    level = [] if key is None else [f"task.{key}={_EXAMPLE}"]
    task: Task = instantiate(compose("train", [f"task={name}", *level, "name=table"]).task)
    trained, tested = _degradation(task)
    row = [
        f"`{name}`",
        trained,
        tested,
        str(task.scale),
        "RGB" if task.channels == 3 else "gray",
        str(task.protocol.border),
        ", ".join(f"`{metric}`" for metric in task.protocol.metrics),
        ", ".join(set_name for set_name in task.test_sets if set_name in ORIGINS),
    ]
    if key == "scale":
        row[3], row[5] = "of the files, or `task.scale`", "the scale, 0 at scale 1"
    return row if key is None else [cell.replace(f"{key} {_EXAMPLE}", f"`task.{key}`") for cell in row]


def _level_of(name: str) -> str | None:
    """Return the key that a family of tasks refers to in its name; None for a single task."""
    text = str(read_yaml(CONFIGS / "task" / f"{name}.yaml").get("name", ""))
    return next((key for key in ("sigma", "quality", "scale") if f"task.{key}" in text), None)


def _degradation(task: Task) -> tuple[str, str]:
    """Describe a task's degradation in training and in tests."""
    match task.degradation:
        case Downscale(variant=variant):
            return "bicubic, MATLAB's imresize", f"official LR files, or imresize on {variant.removeprefix('matlab_')}"
        case GaussianNoise(low=low, high=high, test_sigma=sigma):
            order = f", drawn in {task.protocol.noise.upper()} order" if task.protocol.noise else ""
            return f"Gaussian noise, sigma {_range(low, high)}", f"sigma {sigma:g}, seed 0{order}"
        case Jpeg(low=low, high=high, test_quality=quality):
            gray = f", gray by {task.protocol.gray}" if task.protocol.gray else ""
            return f"JPEG, quality {_range(low, high)}", f"quality {quality:g}{gray}"
        case FromFiles():
            return "pairs of files", "pairs of files"
    return _summary(type(task.degradation)), "the same"


def _summary(kind: type) -> str:
    """Return the first paragraph of a docstring."""
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split()).rstrip(".")


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _comment(group: str, name: str) -> str:
    """Return the first sentence of the comment at the top of a configuration file."""
    lines = (CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    text = " ".join(line.lstrip("# ") for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    return re.sub(r", [\d.]+M parameters( at x\d)?", "", text.partition(". ")[0]).partition(":")[0].rstrip(".")


def _table(header: list[str], rows: list[list[str]], right: tuple[int, ...] = ()) -> str:
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in [header, rule, *rows])
