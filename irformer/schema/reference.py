"""Generation of docs/configuration.md from the description of the keys."""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import OmegaConf

from irformer.schema.check import parameters
from irformer.schema.keys import key_of, unwrap
from irformer.schema.phrases import describe, show
from irformer.schema.sections import SECTIONS, Benchmark, Model, Train
from irformer.schema.targets import locate

_RESUME = {"fixed": "no", "named": "if named", "free": "yes"}
# Arguments that the code passes, not the configuration.
_NOT_KEYS = ("changes", "channels_first", "extra_metrics", "params")
# Groups of classes, in the order of the page.
_GROUPS = (
    "task",
    "protocol",
    "metrics",
    "norm",
    "model",
    "loss",
    "optim",
    "optim/schedule",
    "callbacks",
    "data",
    "trainer",
    "logger",
    "debug",
)


def configuration_page(configs: Path) -> str:
    """Return the content of docs/configuration.md.

    Args:
        configs: folder of the configuration files.
    """
    lines = [
        "# Configuration",
        "",
        "All keys of `train.py` and `benchmark.py`. `make configuration` generates this page from `irformer/schema` and the classes that",
        "the configuration names. The same description is used to validate every value before anything is built.",
        "",
        "The column *on resume* says whether a resumed run may change a key; *if named* means only if the command line names the key",
        "itself, not its group.",
        "",
        "## train.py",
        "",
    ]
    defaults = read_yaml(configs / "train.yaml")
    lines += _section_tables(Train, defaults, configs, resume=True)
    lines += ["## benchmark.py", ""]
    lines += _section_tables(Benchmark, read_yaml(configs / "benchmark.yaml"), configs, resume=False)
    lines += [
        "## Groups",
        "",
        "Select an option of a group with `norm=iln`; change a single key with `norm.block.eps=1e-5`.",
        "",
    ]
    for group in _GROUPS:
        lines += _group(group, configs)
    return "\n".join(lines).rstrip() + "\n"


def words(group: str, configs: Path) -> list[str]:
    """Return the options of a group."""
    return sorted(path.stem for path in (configs / group).glob("*.yaml") if not path.stem.startswith("_"))


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a configuration file, leaving references unresolved."""
    values: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    return values or {}


def _section_tables(section: type, defaults: Mapping[str, Any], configs: Path, resume: bool, prefix: str = "") -> list[str]:
    """Return the table of the keys of a part, followed by those of nested parts."""
    rows, inner = [], []
    for name, annotation in get_type_hints(section, include_extras=True).items():
        kind = unwrap(annotation)[0]
        if kind in SECTIONS:
            chosen = _chosen_word(defaults, name)
            values = defaults[name] if name in defaults else _composed(configs / name, chosen)
            inner += [f"### {prefix}{name}", "", inspect.getdoc(kind) or "", ""]
            inner += _section_tables(kind, values, configs, resume, f"{prefix}{name}.")
            continue
        word = _chosen_word(defaults, name)
        default = _value(defaults, name) if not word or word.startswith("_") else word
        rows.append(_row(f"{prefix}{name}", annotation, default, resume))
        if kind is Model:
            own = get_type_hints(Model, include_extras=True)
            rows += [_row(f"{prefix}{name}.{word}", own[word], _value(defaults[name], word), resume) for word in own]
    header = ["key", "value", "default", "meaning", *(["on resume"] if resume else [])]
    return [*_table(header, rows), "", *inner]


def _row(name: str, annotation: Any, default: str, resume: bool) -> list[str]:
    key = key_of(annotation)
    assert key is not None, name
    return [f"`{name}`", describe(annotation), default, key.doc, *([_RESUME[key.resume]] if resume else [])]


def _group(group: str, configs: Path) -> list[str]:
    """Return the options of a group, and the arguments of the classes that its files name."""
    lines = [f"### {group}=", "", ", ".join(f"`{word}`" for word in words(group, configs)), ""]
    targets: dict[str, list[str]] = {}
    for word in sorted(path.stem for path in (configs / group).glob("*.yaml")):
        for target in _targets(read_yaml(configs / group / f"{word}.yaml")):
            targets.setdefault(target, []).append(word)
    for target in targets:
        if target.startswith(("irformer.", "torch.nn.", "torch.optim.")):
            lines += _class(target)
    return lines


def _class(target: str) -> list[str]:
    function = locate(target)
    docs = argument_docs(function)
    rows = []
    for name, parameter in parameters(function)[0].items():
        if name in _NOT_KEYS or (name == "dim" and target.startswith("irformer.norms.")) or target.startswith("torch."):
            continue
        default = "" if parameter.default is inspect.Parameter.empty else f"`{show(_plain(parameter.default))}`"
        rows.append([f"`{name}`", describe(parameter.annotation), default, docs.get(name, "")])
    table = _table(["key", "value", "default", "meaning"], rows) if rows else []
    summary = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ") if target.startswith("irformer.") else ""
    return [
        f"`{target}`" + (f": {summary}" if summary else ""),
        "",
        *table,
        "",
    ]


def argument_docs(function: Any) -> dict[str, str]:
    """Parse the `Args` section of a class's docstring, by name."""
    for owner in inspect.getmro(function) if inspect.isclass(function) else (function,):
        doc = inspect.cleandoc(owner.__doc__ or "")
        match = re.search(r"^Args:\n((?: .*\n|\n)+)", f"{doc}\n", re.MULTILINE)
        if match:
            parts = re.findall(r"^    (\w+): ((?:.*\n)(?:^     +.*\n)*)", match[1], re.MULTILINE)
            return {name: " ".join(text.split()) for name, text in parts}
    return {}


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        for value in node.values():
            yield from _targets(value)


def _composed(folder: Path, word: str) -> dict[str, Any]:
    """Read a file of a group, including the keys of its base files."""
    own = read_yaml(folder / f"{word}.yaml")
    values: dict[str, Any] = {}
    for base in own.pop("defaults", []):
        if isinstance(base, str) and base != "_self_":
            values |= _composed(folder, base)
        elif isinstance(base, dict):
            values |= {name: f"{name}={chosen}" for name, chosen in base.items()}
    return values | own


def _chosen_word(defaults: Mapping[str, Any], group: str) -> str:
    for entry in defaults.get("defaults", []):
        if isinstance(entry, dict) and group in entry:
            return str(entry[group])
    return ""


def _value(defaults: Mapping[str, Any], name: str) -> str:
    if name not in defaults:
        return ""
    value = defaults[name]
    if value == "???":
        return "required"
    return f"`{value['_target_']}`" if isinstance(value, dict) and "_target_" in value else f"`{show(value)}`"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *escaped]]
