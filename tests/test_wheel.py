"""What is installed: the wheel carries the model and every file that a browser is given."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "logistream"


def build(kind: str, root: Path, target: Path) -> Path:
    """Build a wheel or sdist of a checkout, without fetching anything; return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an unpacked source distribution."""
    archive = build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as file:
        # Python before 3.11.4 has no filters; from 3.12 on, not to name one is a warning.
        file.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        file.extractall(folder)
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel that was built from the source distribution, as installers do."""
    return build("wheel", sdist, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_carries_everything(wheel: Path) -> None:
    """Every file of the package, the model and the orders; nothing else but the metadata."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        f"logistream/{path.relative_to(PACKAGE).as_posix()}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == files | {"logistream/dataco.model", "logistream/df_cleaned.parquet"}
    assert names >= {
        "logistream/py.typed",
        "logistream/notebook.mplstyle",
        "logistream/widgets/static/board.js",
        "logistream/widgets/static/map/coastline.json",
        "logistream/widgets/static/uplot/uPlot.iife.min.js",
        "logistream/widgets/static/uplot/LICENSE",
        "logistream/server/static/swagger-ui/swagger-ui-bundle.js",
        "logistream/server/static/swagger-ui/LICENSE",
    }


@pytest.mark.slow
def test_the_installed_package_brings_its_data(wheel: Path, tmp_path: Path) -> None:
    """Unpacked far from any checkout, it draws orders from the model and loads the orders inside it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import logistream as ls; print(ls.__file__); "
        "print(len(ls.load_model().sample(3)), len(ls.load_orders()))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [str(tmp_path / "logistream" / "__init__.py"), "3", "10000"], done.stderr


def test_the_source_distribution_can_be_worked_with(sdist: Path) -> None:
    """It has what `make lab` and `make test` need."""
    for name in (
        "src/logistream/__init__.py",
        "tests/conftest.py",
        "notebooks/01_live_stream.ipynb",
        "notebooks/live_stream.png",
        "data/dataco.model",
        "data/df_cleaned.parquet",
        "data/README.md",
        "environment.yml",
        "environment-spark.yml",
        "Makefile",
        "Containerfile",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "pyproject.toml",
    ):
        assert (sdist / name).is_file(), name
