"""Reading a run's config.yaml, which may come from an untrusted source: validated as plain data before it is resolved or built."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.grammar_parser import OmegaConfGrammarParser, parse

from irformer.core.moved import with_current_names
from irformer.core.trust import Trust, shortened
from irformer.errors import UserError
from irformer.weights.pickles import require_file

CONFIG = Path("config.yaml")  # relative to a run's folder

_EXPECTED = "the saved configuration of a run"
_BYTES = 2**20
_DEPTH = 32
_VALUES = 20_000
_TEXT = 4096
_REFERENCES = 16  # per value
_EXPANDED = 200_000  # total number of characters and values that references may expand to
_RESOLVERS = ("oc.env", "oc.select")
# Parts that a resumed run requires; keys inside them may be missing from files of older versions.
_PARTS = ("task", "data", "norm", "model", "loss", "optim", "trainer", "callbacks", "logger", "paths")
_SPECIAL: dict[str, type] = {
    "_target_": str,
    "_partial_": bool,
    "_recursive_": bool,
    "_convert_": str,
    "_args_": list,
}

_Key = tuple[str, ...]  # path of a value
_Reference = tuple[str | None, ...]  # path that a value refers to; None for a component that is itself a reference


def read_saved_config(file: Path, trust: Trust | None = None, whole: bool = False) -> DictConfig:
    """Read a run's config.yaml.

    Args:
        file: the file.
        trust: which classes the file may name, if a run is built from it; None if it is only compared.
        whole: whether it must have all parts required to build a run.

    Raises:
        UserError: the file cannot be read, is not plain YAML or too large, refers to anything but other keys and environment variables, or
            names a class that is not trusted.
    """
    require_file(file, _EXPECTED)
    try:
        config = _plain_yaml(file)
        content: Any = OmegaConf.to_container(config, resolve=False)
        values = dict(_values(content))
        _require_bounded_references(values)
        for key, node in values.items():
            if isinstance(node, dict):
                _require_known_keys(key, node, trust)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except (OSError, yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{file}: cannot be read ({shortened(line, 200)}); expected {_EXPECTED}") from None
    missing = [part for part in _PARTS if whole and not isinstance(content.get(part), dict)]
    if missing:
        raise UserError(f"{file}: lacks {', '.join(missing)}; expected {_EXPECTED}")
    return config


def _plain_yaml(file: Path) -> DictConfig:
    """Parse YAML after checking its event stream against limits, before any object is composed."""
    with file.open("rb") as opened:
        text = opened.read(_BYTES + 1).decode("utf-8")
    if len(text) > _BYTES:
        raise UserError(f"larger than {_BYTES:,} bytes; expected {_EXPECTED}")
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if count == 2 and not isinstance(event, yaml.MappingStartEvent):  # events 0 and 1 start the stream and the document
            raise UserError(f"expected {_EXPECTED}, found no mapping")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise UserError(f"line {event.start_mark.line + 1}: an alias or anchor; expected plain YAML without references")
        if getattr(event, "tag", None) is not None:
            raise UserError(f"line {event.start_mark.line + 1}: the tag {shortened(event.tag)}; expected plain YAML without tags")
        if depth > _DEPTH or count > _VALUES:
            raise UserError(f"more than {_DEPTH} levels or {_VALUES:,} values; expected {_EXPECTED}")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _TEXT:
            raise UserError(f"line {event.start_mark.line + 1}: a text of more than {_TEXT:,} characters; expected {_EXPECTED}")
    config = OmegaConf.create(with_current_names(OmegaConf.to_container(OmegaConf.create(text))))
    assert isinstance(config, DictConfig)
    return config


def _values(node: Any, key: _Key = ()) -> Iterator[tuple[_Key, Any]]:
    """Yield every value at every depth, including mappings and lists."""
    yield key, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        if isinstance(name, str) and ("${" in name or not name.isprintable()):
            raise UserError(f"the key {shortened(name)}: expected plain text")
        yield from _values(value, (*key, str(name)))


def _require_known_keys(key: _Key, node: dict[Any, Any], trust: Trust | None) -> None:
    """Check Hydra's special keys of a node, and the class that it names."""
    where = shortened(".".join(key)) or "the file"
    for name in node:
        if isinstance(name, str) and re.fullmatch(r"_\w+_", name):
            kind = _SPECIAL.get(name)
            if kind is None:
                raise UserError(f"{where}.{shortened(name)}: unknown key; known: {', '.join(_SPECIAL)}")
            if not isinstance(node[name], kind) or (isinstance(node[name], str) and "${" in node[name]):
                raise UserError(f"{where}.{name}={shortened(node[name])}: expected {kind.__name__}, not a reference")
    if trust is not None and "_target_" in node:
        try:
            trust.find(node["_target_"], "run")
            trust.require_arguments(node["_target_"], [str(name) for name in node if name not in _SPECIAL])
        except UserError as error:
            raise UserError(f"{where} {error}") from None


def _require_bounded_references(values: dict[_Key, Any]) -> None:
    """Check that references are allowed, acyclic, and expand to a bounded amount of text."""
    references = {key: list(_references(key, value)) for key, value in values.items() if isinstance(value, str) and "${" in value}
    sizes: dict[_Key, int] = {}
    open_keys: set[_Key] = set()

    def size(key: _Key) -> int:
        if key in sizes:
            return sizes[key]
        if key in open_keys:
            raise UserError(f"{shortened('.'.join(key))} refers to itself")
        open_keys.add(key)
        value = values[key]
        total = 1 + (len(value) if isinstance(value, str) else 0)
        if isinstance(value, dict | list):
            total += sum(size((*key, str(name))) for name in (value if isinstance(value, dict) else range(len(value))))
        for reference in references.get(key, ()):
            total += max((size(other) for other in _referred(reference, values)), default=0)
        if total > _EXPANDED:
            raise UserError(f"{shortened('.'.join(key)) or 'it'} has references that expand too far; expected {_EXPECTED}")
        open_keys.remove(key)
        sizes[key] = total
        return total

    size(())


def _referred(reference: _Reference, values: dict[_Key, Any]) -> list[_Key]:
    """Return the keys that a reference may resolve to; if its path continues behind another reference, the key of that reference."""
    if None in reference:
        return [key for key in values if len(key) == len(reference) and all(r in (None, k) for r, k in zip(reference, key, strict=True))]
    key = tuple(str(part) for part in reference)
    while key and key not in values:
        key = key[:-1]
    return [key] if key and (len(key) == len(reference) or isinstance(values[key], str)) else []


def _references(key: _Key, text: str) -> Iterator[_Reference]:
    """Yield the targets of the references in a text, after checking their resolvers."""
    where = shortened(".".join(key))
    if text.count("${") > _REFERENCES:
        raise UserError(f"{where}: more than {_REFERENCES} references in one value; expected {_EXPECTED}")
    for node in _nodes(parse(text, parser_rule="configValue", lexer_mode="DEFAULT_MODE")):
        if isinstance(node, OmegaConfGrammarParser.InterpolationNodeContext):
            yield _absolute(key, node)
        elif isinstance(node, OmegaConfGrammarParser.InterpolationResolverContext):
            name = node.resolverName().getText()
            if name not in _RESOLVERS and not re.fullmatch(r"irformer\.\w+", name):
                raise UserError(
                    f"{where}={shortened(text)}: {shortened(name)} is not allowed; expected a reference to another key, "
                    f"{', '.join(_RESOLVERS)} or irformer.NAME"
                )
            if name == "oc.select":
                arguments = node.sequence()
                selected = arguments.element(0).getText().strip("'\"") if arguments is not None else ""
                if "${" in selected or selected.startswith("."):
                    raise UserError(f"{where}={shortened(text)}: expected oc.select of a literal key")
                yield tuple(part for part in re.split(r"[.\[\]]+", selected) if part)


def _absolute(key: _Key, node: Any) -> _Reference:
    parts: list[str | None] = []
    dots = 0
    for child in node.getChildren():
        if isinstance(child, OmegaConfGrammarParser.ConfigKeyContext):
            text = child.getText()
            parts.append(None if "${" in text else text)
        elif not parts and child.getText() == ".":
            dots += 1
    return (*key[: len(key) - dots], *parts) if dots else tuple(parts)


def _nodes(tree: Any) -> Iterator[Any]:
    yield tree
    for i in range(tree.getChildCount()):
        yield from _nodes(tree.getChild(i))
