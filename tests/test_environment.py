"""environment.yml and pyproject.toml name the same packages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_conda_and_pip_users_get_the_same_packages() -> None:
    """Names and lower bounds agree, and conda ends with the package itself, editable."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {*project["dependencies"], *extras["lab"], *extras["report"], *extras["test"]}
    lines = (ROOT / "environment.yml").read_text("utf-8").splitlines()
    listed = [line.strip().removeprefix("- ") for line in lines if line.startswith("  - ")]
    packages = {line for line in listed[listed.index("pip") + 1 :] if line != "pip:"}
    assert packages == wanted
    assert f"python{project['requires-python']}" in listed
    assert lines[-2:] == ["  - pip:", "      - -e ."]


def test_every_dependency_says_why() -> None:
    """Each line of a dependency list in pyproject.toml that is not self-evident carries a reason."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    lines = re.findall(r'^  "[a-z0-9_-]+>=[^"]+",(.*)$', text.split("[project.scripts]")[0], re.MULTILINE)
    assert lines
    assert all(line.strip().startswith("#") for line in lines)
