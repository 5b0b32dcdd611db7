"""What is installed: environment.yml and pyproject.toml agree, and what we build on is as we know it."""

from __future__ import annotations

import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from uvicorn import Server
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import ClientConnection
from websockets.server import ServerProtocol

from logistream.client import listener
from logistream.server import protocol, server

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

SUBCLASSED = [Server, H11Protocol, WebSocketsSansIOProtocol, ClientConnection]
"""Classes of uvicorn and websockets that we subclass, and that they do not document as stable."""


def test_conda_installs_what_the_workbench_needs() -> None:
    """Names and bounds agree; only what the test suite alone needs comes from pip."""
    wanted = {*PROJECT["dependencies"], *EXTRAS["lab"], *EXTRAS["report"]}
    wanted |= {name for name in EXTRAS["test"] if name.startswith("pytest>")}
    lines = (ROOT / "environment.yml").read_text("utf-8").splitlines()
    listed = [line.strip().removeprefix("- ") for line in lines if line.startswith("  - ")]
    packages = {line for line in listed[listed.index("pip") + 1 :] if line != "pip:"}
    assert packages == wanted
    assert f"python{PROJECT['requires-python']}" in listed
    assert lines[-2:] == ["  - pip:", "      - -e .[test]"]


def test_conda_installs_what_spark_needs() -> None:
    """The bound of pyspark agrees; Java comes along; the environment and its channels are the same."""
    more = (ROOT / "environment-spark.yml").read_text("utf-8")
    assert [line.partition(" #")[0] for line in re.findall(r"^  - (py.*)", more, re.MULTILINE)] == EXTRAS[
        "spark"
    ]
    assert re.search(r"^  - openjdk>=17", more, re.MULTILINE)
    first = (ROOT / "environment.yml").read_text("utf-8")
    for text in (first, more):
        assert re.search(
            r"^name: logistream\nchannels:\n  - conda-forge\n  - nodefaults\n", text, re.MULTILINE
        )


def test_every_dependency_says_why() -> None:
    """Each line of a dependency list in pyproject.toml carries a reason."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    lines = re.findall(r'^  "[a-z0-9_-]+>=[^"]+",(.*)$', text.split("[project.scripts]")[0], re.MULTILINE)
    assert lines
    assert all(line.strip().startswith("#") for line in lines)


@pytest.mark.parametrize("name", ["uvicorn", "websockets"])
def test_what_is_subclassed_has_an_upper_bound(name: str) -> None:
    """And the installed version is below it, so that the tests here have seen it.

    Before a bound is raised: install the new version, run this file, `tests/server` and `tests/client`, and
    read what its changelog says of the classes in `SUBCLASSED` and of `websockets.protocol`.
    """
    (line,) = (line for line in PROJECT["dependencies"] if line.startswith(name))
    upper = line.partition("<")[2]
    assert upper
    installed = tuple(map(int, version(name).split(".")[:2]))
    assert installed < tuple(map(int, upper.split(".")))


def subclasses() -> list[tuple[type, type]]:
    """Return each class of ours with the class above that it extends."""
    ours = [
        value
        for module in (listener, protocol, server)
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    return [(cls, base) for cls in ours for base in SUBCLASSED if issubclass(cls, base)]


def names(cls: type) -> set[str]:
    """Return the attributes of a class and those that its methods set on an instance."""
    sources = [
        inspect.getsource(part) for part in cls.__mro__ if part.__module__ not in ("builtins", "typing")
    ]
    return set(dir(cls)) | set(re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? = ", "\n".join(sources)))


def test_each_subclass_is_looked_at() -> None:
    """The tests below see all four."""
    assert {base for _, base in subclasses()} == set(SUBCLASSED)


@pytest.mark.parametrize(("ours", "base"), subclasses(), ids=lambda cls: cls.__name__)
def test_what_we_override_has_the_same_parameters(ours: type, base: type) -> None:
    """A method that the base class calls gets what it expects, under the same names."""
    overridden = [
        name
        for name, value in vars(ours).items()
        if inspect.isfunction(value) and name in dir(base) and name != "__init__"
    ]
    for name in overridden:
        mine, theirs = (list(inspect.signature(getattr(cls, name)).parameters) for cls in (ours, base))
        assert mine == theirs, f"{base.__module__}.{base.__name__}.{name} has other parameters"


@pytest.mark.parametrize(("ours", "base"), subclasses(), ids=lambda cls: cls.__name__)
def test_what_we_use_of_a_base_class_is_there(ours: type, base: type) -> None:
    """Every attribute that a subclass of ours reads is its own or one that the base class sets."""
    source = inspect.getsource(ours)
    used = set(re.findall(r"\bself\.(\w+)", source))
    assert used - names(ours) - names(base) == set()
    of_protocol = set(re.findall(r"\bself\.conn\.(\w+)", source))
    assert of_protocol - names(ServerProtocol) == set()
    called = set(re.findall(r"\bsuper\(\)\.(\w+)", source))
    assert called - set(dir(base)) == set()
