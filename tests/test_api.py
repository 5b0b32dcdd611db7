"""What the package offers: names, docstrings, and what importing it costs."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import logistream
from helpers.spark import modules

MODULES = ["logistream", *modules()]

each_module = pytest.mark.parametrize("name", MODULES)


def public(module: ModuleType) -> dict[str, object]:
    """Return what a module offers."""
    return {name: getattr(module, name) for name in module.__all__}


@each_module
def test_all_is_complete(name: str) -> None:
    """Each module has `__all__`; what it lists is there, is named once, and is public."""
    module = import_module(name)
    names = list(module.__all__)
    assert len(names) == len(set(names))
    assert all(hasattr(module, listed) for listed in names)
    assert not any(listed.startswith("_") for listed in names)


@each_module
def test_what_is_public_is_documented(name: str) -> None:
    """Module, classes, functions, and the public methods and properties of the classes have docstrings."""
    module = import_module(name)
    missing = [] if module.__doc__ else [name]
    for label, value in public(module).items():
        if inspect.isclass(value) or inspect.isfunction(value):
            missing += [] if inspect.getdoc(value) else [label]
        if inspect.isclass(value):
            missing += [
                f"{label}.{member}"
                for member, thing in vars(value).items()
                if not member.startswith("_")
                and (callable(thing) or isinstance(thing, property | classmethod | staticmethod))
                and not inspect.getdoc(getattr(value, member))
            ]
    assert missing == []


def test_type_checkers_see_the_same_names() -> None:
    """What is imported lazily for users is imported plainly for their editors."""
    tree = ast.parse(Path(str(logistream.__file__)).read_text(encoding="utf-8"))
    imported = {
        (alias.asname, node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("logistream.")
        for alias in node.names
    }
    assert imported == {(name, f"logistream.{home}") for name, home in logistream._HOME.items()}
    assert sorted(logistream.__all__) == sorted([*logistream._HOME, *logistream._MODULES])


@pytest.mark.parametrize("name", logistream._HOME)
def test_every_name_can_be_imported(name: str) -> None:
    """`from logistream import …` gives what its home module defines."""
    value = getattr(logistream, name)
    assert value.__module__.startswith(f"logistream.{logistream._HOME[name]}")
    assert name in dir(logistream)


def test_spark_is_imported_where_it_is_used() -> None:
    """`ls.spark` is a folder whose names need pyspark only when they are called."""
    code = "import sys, logistream as ls; print(sorted(ls.spark.__all__), 'pyspark' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['local_session', 'register', 'stop'] False\n"


def test_the_scenarios_of_orders_need_no_other_import() -> None:
    """`ls.dataco.port_strike()` works after `import logistream as ls` alone."""
    code = "import logistream as ls; print(ls.Scenario.from_json(ls.dataco.port_strike('Caribbean')).name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "port strike, Caribbean\n"


def test_completion_offers_public_names_only() -> None:
    """`ls.<TAB>` lists what the package offers, and no other module."""
    import_module("logistream.frame.events")
    assert sorted(dir(logistream)) == sorted([*logistream.__all__, "__version__"])


def test_an_unknown_name_is_an_ordinary_error() -> None:
    """So that `hasattr` and completion work."""
    with pytest.raises(AttributeError, match="module 'logistream' has no attribute 'StreamSever'"):
        logistream.StreamSever  # noqa: B018


def test_importing_costs_nothing_that_is_not_used() -> None:
    """`import logistream` loads no web server, no widgets, no pandas."""
    code = "import sys, logistream; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert (
        loaded & {"fastapi", "uvicorn", "websockets", "anywidget", "ipywidgets", "pandas", "pyarrow", "numpy"}
        == set()
    )
