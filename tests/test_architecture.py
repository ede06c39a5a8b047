"""The structure that docs/architecture.md describes: rooms in layers, imports that run downwards, and what each room may not import."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import irformer

PACKAGE = Path(irformer.__file__).parent

# From the bottom to the top. A room imports from the layers below its own, and nothing from rooms beside it.
LAYERS = (
    {"errors"},
    {"core", "norms"},
    {"models", "imaging"},
    {"metrics", "datasets", "banded"},
    {"tasks"},
    {"data"},
    {"schema"},
    {"weights", "dynamics", "precision"},
    {"evaluation", "graphs"},
    {"reporting"},
    {"inspection"},
    {"config"},
    {"training"},
    {"runs"},
    {"experiments", "speed", "__init__"},  # __init__: functions that import what they need when they are called
    {"commands"},
    {"entry"},
    {"__main__"},
)
# Frameworks that a room uses. Everything else must work without them: in a notebook, in a service, in somebody's own training loop.
FRAMEWORKS = ("lightning", "hydra")
USES = {
    "schema": {"lightning"},  # in a function: the arguments of its Trainer
    "config": {"hydra"},
    "training": {"lightning"},
    "runs": {"hydra"},
    "commands": {"hydra", "lightning"},
}


def modules() -> dict[str, Path]:
    names = {}
    for file in PACKAGE.rglob("*.py"):
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        names[name.removesuffix(".__init__")] = file
    return names


MODULES = modules()


def imports(file: Path, lazy: bool = True) -> Iterator[str]:
    """Full names of the modules that a file imports, those in functions included if `lazy`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {id(node) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if not lazy and id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                within = f"{node.module}.{alias.name}"
                yield within if within.removeprefix("irformer.") in MODULES else node.module


def room(name: str) -> str:
    return name.split(".")[0]


def layer(name: str) -> int:
    return next(height for height, rooms in enumerate(LAYERS) if room(name) in rooms)


@pytest.mark.parametrize("name", sorted({room(name) for name in MODULES}))
def test_a_room_imports_only_from_lower_layers(name: str) -> None:
    upwards = []
    for module, file in MODULES.items():
        if room(module) != name:
            continue
        for imported in imports(file):
            if imported.split(".")[0] != "irformer":
                continue
            other = imported.removeprefix("irformer").removeprefix(".") or "__init__"
            if room(other) != name and layer(other) >= layer(module):
                upwards.append(f"{module} imports {other}")
    assert upwards == []


def test_no_module_imports_itself_through_others() -> None:
    graph = {
        name: {other.removeprefix("irformer.") for other in imports(file) if other.startswith("irformer.")}
        for name, file in MODULES.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name in done or name == "__init__":
            return
        for other in graph.get(name, ()):
            visit(other, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_frameworks_are_used_only_where_they_belong(framework: str) -> None:
    found = {room(name) for name, file in MODULES.items() if any(imported.split(".")[0] == framework for imported in imports(file))}
    assert found <= {name for name, used in USES.items() if framework in used}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_data_weights_and_evaluation_load_without_a_framework(framework: str) -> None:
    """In a process of its own, since some library might import it too."""
    lower = [
        name
        for name in sorted(MODULES)
        if room(name) in {"models", "tasks", "data", "weights", "evaluation", "graphs", "dynamics", "reporting", "inspection"}
    ]
    code = (
        f"import sys, importlib\nfor name in {lower}: importlib.import_module('irformer.' + name)\nsys.exit({framework!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_two_modules_share_a_name() -> None:
    """Commands are named after what the user types; all other names mean one thing."""
    names = Counter(file.name for name, file in MODULES.items() if room(name) != "commands" and file.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_few_modules_stand_outside_of_a_room() -> None:
    assert {name for name in MODULES if "." not in name and (PACKAGE / f"{name}.py").is_file()} <= {
        "__init__",
        "__main__",
        "entry",
        "errors",
    }


def test_private_parts_of_lightning_are_used_in_one_module() -> None:
    """So that a new version of Lightning breaks one file, whose test says what changed."""
    users = []
    for name, file in MODULES.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        private = [
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lightning"
            for alias in node.names
            if alias.name.startswith("_")
        ]
        private += [
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in {"fit_loop", "epoch_loop", "val_loop", "procs"}
        ]
        if private and name != "training.lightning_internals":
            users.append(f"{name}: {', '.join(sorted(set(private)))}")
    assert users == []
