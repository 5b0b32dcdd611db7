"""What the tests of the widgets share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a control wait for its server for as long as a busy machine may take."""
    monkeypatch.setattr("logistream.widgets.control._TIMEOUT", 60.0)
