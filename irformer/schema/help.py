"""The text of `--help`: the most used keys, on one screen."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import get_type_hints

from irformer.core.version import __version__
from irformer.schema.keys import key_of
from irformer.schema.reference import words
from irformer.schema.roles import described
from irformer.schema.sections import Benchmark

_WIDTH = 100
_TRAIN_GROUPS: tuple[str, ...] = ("task", "data", "model", "norm", "loss", "optim", "trainer", "logger", "debug")
_TRAIN_KEYS = (
    "name",
    "seed",
    "batch_size",
    "patch_size",
    "max_batch_per_device",
    "trainer.max_steps",
    "optim.lr",
    "test_sets",
    "init_from",
    "resume",
    "sweep",
)
_BENCHMARK_KEYS = ("checkpoint", "tasks", "test_sets", "reference", "ensemble", "tile", "precision", "save_images", "device", "out")


def help_text(root: str, configs: Path, extra: Sequence[Path] = ()) -> str:
    """Return the help text of train.py or benchmark.py.

    Args:
        root: `train` or `benchmark`.
        configs: folder of the configuration files.
        extra: folders of other packages, which add options to the groups.
    """

    def offered(group: str) -> list[str]:
        return sorted({word for folder in (configs, *extra) for word in words(group, folder)})

    if root == "train":
        usage = [
            f"irformer {__version__}: train an image restoration transformer",
            "",
            "  python train.py KEY=VALUE ...            one run",
            "  python train.py -m KEY=VALUE,VALUE ...   a sweep: one run per combination",
            "  python train.py resume=runs/NAME         resume a run",
        ]
        keys = {name: described(name).doc for name in _TRAIN_KEYS}
        groups = _TRAIN_GROUPS
        more = f"experiment=NAME      a published recipe, {len(offered('experiment'))} in configs/experiment"
    else:
        usage = [
            f"irformer {__version__}: evaluate checkpoints on test sets",
            "",
            "  python scripts/benchmark.py checkpoint=PATH [task=NAME] ['test_sets=[NAME,...]']",
            "  python scripts/benchmark.py 'checkpoint=[PATH,bicubic,...]' 'tasks=[NAME,...]' ['test_sets=[NAME,...]']",
        ]
        hints = get_type_hints(Benchmark, include_extras=True)
        keys = {name: found.doc for name in _BENCHMARK_KEYS if (found := key_of(hints[name])) is not None}
        groups = ("task", "protocol")
        more = ""
    lines = [*usage, "", "Groups and their options:", ""]
    lines += [_entry(f"{group}=", " ".join(_families(offered(group)) if group == "task" else offered(group))) for group in groups]
    lines += [f"  {more}"] if more else []
    lines += ["", "Keys:", "", *(_entry(f"{name}=", doc) for name, doc in keys.items())]
    lines += ["", "All keys: docs/configuration.md. --cfg job prints the composed configuration, --hydra-help the options of Hydra."]
    return "\n".join(lines)


def _entry(name: str, text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=f"  {name:20} ", subsequent_indent=" " * 23, break_on_hyphens=False)


def _families(names: list[str]) -> list[str]:
    """Combine names with a common prefix: `sr_x2`, `sr_x3` to `sr_x2|x3`."""
    families: dict[str, list[str]] = {}
    for name in names:
        stem, _, last = name.rpartition("_")
        families.setdefault(stem, []).append(last)
    return [
        part
        for stem, ends in families.items()
        for part in ([f"{stem}_{'|'.join(ends)}"] if stem and len(ends) > 1 else [f"{stem}_{end}" if stem else end for end in ends])
    ]
