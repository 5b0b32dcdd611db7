"""The folders of the package import downwards only, and no modules import each other in a circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import logistream

PACKAGE = Path(str(logistream.__file__)).parent

ORDER = (
    "errors",
    "progress",
    "times",
    "schema",
    "urls",
    "tables",
    "dataco",
    "evaluation",
    "model",
    "fitting",
    "stream",
    "server",
    "drift",
    "client",
    "frame",
    "verification",
    "widgets",
    "spark",
    "tail",
    "bridge",
    "cli",
    "__init__",
    "__main__",
)
"""What is on the top level of the package; each may import only from what stands before it."""


def module_name(path: Path) -> str:
    """Return the dotted name of a module below the package, such as `stream.query`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """Return the modules of this package that a module imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.removeprefix("logistream.") for name in names if name.startswith("logistream.")}
    return found & set(MODULES)


def test_every_module_has_its_place() -> None:
    """The top level holds the folders and modules of the layout, and nothing else."""
    assert {name.partition(".")[0] for name in MODULES} == set(ORDER)


def test_imports_point_downwards() -> None:
    """A folder imports only from those below it."""
    place = {folder: position for position, folder in enumerate(ORDER)}
    upward = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in sorted(imported(path))
        if place[other.partition(".")[0]] > place[name.partition(".")[0]]
    ]
    assert upward == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Also inside a folder, and counting imports inside functions and for the type checker."""
    graph = {name: imported(path) - {name} for name, path in MODULES.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert set(order) == set(MODULES)
