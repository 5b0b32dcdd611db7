"""One JupyterLab and one browser for all tests in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser.bench import Desk
from helpers.lab import CHROMIUM, DRIVER, chromium, jupyterlab

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a JupyterLab in a browser; skip without a browser."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver here: install both to run this")
    home = tmp_path_factory.mktemp("browser")
    root = home / "root"
    root.mkdir()
    with jupyterlab(root, home) as address, chromium(home) as browser:
        browser.set_window_size(1400, 1100)
        yield Desk(browser, root, address)
