"""What is promised on a timeline: kept for others, never contradicted, and cheap."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.clocks import NOW, SECOND, Clock
from logistream.errors import StreamError
from logistream.stream.promise import Promise
from logistream.stream.timeline import first_entry
from logistream.stream.timeline_file import LEAD_MICROS, FileTimeline, open_timeline_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Open = Callable[[Clock], FileTimeline]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where no timeline is yet."""
    return tmp_path / "timeline"


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    """Give a way to open the timeline with a clock."""
    timelines = []

    def opening(clock: Clock) -> FileTimeline:
        timelines.append(
            open_timeline_file(
                path, header={"seed": 1}, first_entry=lambda now: first_entry(now, rate=100), clock=clock
            )
        )
        return timelines[-1]

    yield opening
    for timeline in timelines:
        timeline.close()


def test_a_change_comes_after_what_another_process_may_have_delivered(opened: Open) -> None:
    """With clocks 2 s apart the entry of the slow one begins where the promise of the fast one ends."""
    slow, fast = Clock(), Clock()
    fast.now += 2 * SECOND
    behind, ahead = opened(slow), opened(fast)
    delivered = ahead.known_until(fast.now + SECOND)
    assert delivered == fast.now + LEAD_MICROS
    count = ahead.count(delivered)
    entry = behind.change(slow.now, rate=5)
    assert entry.since == delivered
    assert entry.first == count
    assert behind.reached == fast.now  # 2 s ahead of its own clock
    assert ahead.refresh()
    assert ahead.entries == behind.entries
    assert ahead.count(delivered) == count
    assert ahead.reached == fast.now


def test_how_far_the_clocks_are_apart_is_true_after_one_was_set_back(opened: Open) -> None:
    """The sentence compares with the clock, not with the time that the stream had reached before."""
    slow, fast = Clock(), Clock()
    fast.now += 10 * SECOND
    behind = opened(slow)
    opened(fast)
    slow.now -= 60 * SECOND
    with pytest.raises(StreamError, match="has a clock 70 s ahead of this one"):
        behind.change(slow.now, rate=5)


def test_a_change_that_would_take_effect_much_later_is_refused(opened: Open) -> None:
    """The sentence says why and until when; nothing is changed, until the clock is right."""
    slow, fast = Clock(), Clock()
    fast.now += 60 * SECOND
    behind = opened(slow)
    opened(fast)
    with pytest.raises(StreamError, match=r"has a clock 60 s ahead of this one and may have delivered .*:40"):
        behind.change(slow.now, rate=5)
    assert len(behind.entries) == 1
    slow.now += 60 * SECOND
    assert behind.change(slow.now, rate=5).since == slow.now + LEAD_MICROS


def test_a_process_continues_from_what_was_promised(opened: Open) -> None:
    """Started 20 s ahead, and again with the right clock: what was delivered has still happened."""
    clock = Clock()
    clock.now += 20 * SECOND
    first = opened(clock)
    delivered = first.known_until(clock.now + SECOND)
    first.close()
    clock.now = NOW
    again = opened(clock)
    assert again.latest == delivered
    assert again.known_until(again.latest) == delivered
    assert again.change(again.latest, rate=5).since >= delivered
    clock.now += 30 * SECOND
    assert again.refresh()
    assert again.latest == clock.now


@pytest.mark.parametrize("content", [b"", b"x", b"9" * 64, b"%020d %010d %010d\n" % (NOW * 2, 5, 7), None])
def test_a_promise_that_is_damaged_or_missing_counts_as_none(
    path: Path, opened: Open, content: bytes | None
) -> None:
    """So a loss of power or a cleaner of files stops no stream."""
    clock = Clock()
    timeline = opened(clock)
    promise = path.with_name("timeline-promised")
    if content is None:
        promise.unlink()
    else:
        promise.write_bytes(content)
    assert timeline.promised() == 0
    assert timeline.refresh()
    assert timeline.promised() == clock.now + LEAD_MICROS


def test_a_promise_belongs_to_one_timeline(path: Path, opened: Open) -> None:
    """Another timeline at the same path does not continue from the promise of the one before."""
    clock = Clock()
    clock.now += 1000 * SECOND
    opened(clock).close()
    path.unlink()
    clock.now = NOW
    again = opened(clock)
    assert again.promised() == clock.now + LEAD_MICROS
    assert again.latest == clock.now


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_in_its_place_is_refused(tmp_path: Path) -> None:
    """Instead of a wait for ever."""
    os.mkfifo(tmp_path / "t-promised")
    with pytest.raises(StreamError, match=r"t-promised cannot be written: "):
        Promise(tmp_path / "t", 1).write(NOW)
