"""Whether events can happen, for probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logistream.server.pump import Pump
    from logistream.stream.stream import Stream

__all__ = ["Health"]


_ROUND_WITHIN = 15.0
"""Seconds within which the readers are served at least once; usually one."""


class Health:
    """Why no event can happen, if that is so.

    Attributes
    ----------
    trouble : str
        Why the timeline could not be read last; empty if it could.
    """

    def __init__(self, stream: Stream, pump: Pump) -> None:
        self._stream, self._pump = stream, pump
        self.trouble = ""

    def reason(self) -> str | None:
        """Return why no event can happen, as a sentence; None if events can. A pause is no reason."""
        if self.trouble:
            return self.trouble
        if not self._pump.feeds.working:
            return "the thread that makes events has ended: restart the server and report this"
        silent = self._pump.silent
        if silent > _ROUND_WITHIN:
            return f"no reader has been served for {silent:.0f} s: restart the server and report this"
        if self._stream.waiting_for_clock:
            behind = self._stream.clock_behind
            return (
                f"the clock of this machine is {behind:.1f} s behind the stream, which waits for it: "
                f"set the clock"
            )
        return None
