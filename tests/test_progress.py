"""Progress on stderr."""

from __future__ import annotations

import pytest

from logistream.progress import progress_shown


def test_the_last_step_is_always_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside a terminal a short computation prints one line, when it is done."""
    monkeypatch.setattr("logistream.progress._SECONDS_BETWEEN_LINES", 1000.0)
    with progress_shown("learning", 3) as advance:
        for _ in range(3):
            advance()
    assert capsys.readouterr() == ("", "learning: 3 of 3 done\n")


def test_nothing_is_printed_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """With shown=False the function that is given does nothing."""
    with progress_shown("learning", 1, shown=False) as advance:
        advance()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In a terminal a bar is drawn and removed; no line stays."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress_shown("learning", 2) as advance:
        advance()
        advance()
    assert "2 of 2 done" not in capsys.readouterr().err
