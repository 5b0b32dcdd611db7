"""What the tests of the clients share."""

from __future__ import annotations

import pytest

import logistream.client.follower as follower_module
import logistream.client.listener as listener_module
import logistream.frame.frame as frame_module


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients wait for what will come for as long as a busy machine may take."""
    monkeypatch.setattr(follower_module, "_STOP_SECONDS", 60.0)
    monkeypatch.setattr(frame_module, "_ANSWER_SECONDS", 60.0)
    monkeypatch.setattr(listener_module, "_OPEN_TIMEOUT", 60.0)
    monkeypatch.setattr(listener_module, "_REASON_TIMEOUT", 60.0)
