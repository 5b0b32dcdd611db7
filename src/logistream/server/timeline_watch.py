"""Take in what other servers add to a shared timeline, and report clocks that cannot be right."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from logistream.errors import LogistreamError
from logistream.server.file_watch import FileWatch
from logistream.stream.timeline_file import LEAD_MICROS, FileTimeline

if TYPE_CHECKING:
    from logistream.server.health import Health
    from logistream.stream.stream import Stream

__all__ = ["watch_timeline"]


logger = logging.getLogger(__name__)

_LOOK_EVERY = 1.0  # seconds, even if no change is noticed
_REPORT_EVERY = 60.0  # seconds, at most; the other server may only be slow to promise
_TRY_AGAIN = 0.005  # seconds, while another process is writing
_TRIES = 40


async def watch_timeline(stream: Stream, health: Health) -> None:
    """Refresh a stream whenever its timeline file changes, until cancelled; `health` gets what goes wrong."""
    timeline = stream.timeline
    clock_trouble = ""
    reported: dict[str, float] = {}  # when, for each kind of trouble with the clock
    with FileWatch(timeline.path) if isinstance(timeline, FileTimeline) else nullcontext() as watch:
        while True:
            await (watch.change(_LOOK_EVERY) if watch else asyncio.sleep(_LOOK_EVERY))
            try:
                for _ in range(_TRIES):
                    if stream.refresh():
                        break
                    await asyncio.sleep(_TRY_AGAIN)
                health.trouble = ""
            except LogistreamError as error:  # no event happens until it can be read again
                if str(error) != health.trouble:
                    health.trouble = str(error)
                    logger.warning("no more events for now: %s", health.trouble)
            kind, sentence = _clock_trouble(stream)
            now = time.monotonic()
            if kind != clock_trouble and sentence and now > reported.get(kind, -math.inf) + _REPORT_EVERY:
                logger.warning("%s", sentence)
                reported[kind] = now
            clock_trouble = kind


def _clock_trouble(stream: Stream) -> tuple[str, str]:
    """Return what is wrong with the clock: a word for it, and a sentence; both empty if nothing is."""
    behind, waiting = stream.clock_state()
    if waiting:
        return "set back", (
            f"waiting for the clock: it is {behind:,.1f} s behind the time that this stream has reached, and "
            f"no event happens until it gets there"
        )
    if behind * 1e6 > LEAD_MICROS:
        return "apart", (
            f"a server that shares this timeline has a clock {behind:,.1f} s ahead of this one: changes made "
            f"here take effect that much later; set the clocks"
        )
    return "", ""
