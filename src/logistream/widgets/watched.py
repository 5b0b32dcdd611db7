"""What a widget watches: a frame that is drawn, a server that is steered, and the state of their stream."""

from __future__ import annotations

import itertools
import time
import weakref
from typing import TYPE_CHECKING, Any

from logistream.widgets.control import LocalControl
from logistream.widgets.menus import fault_choices, fault_names, scenario_choices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from logistream.client.follower import Follower
    from logistream.frame.frame import RollingFrame
    from logistream.stream.timeline import Entry, Timeline
    from logistream.widgets.control import Control, Settings

__all__ = ["Watched"]


_MOST_MARKS = 200  # on the time axis
_FEW_BEHIND = 100  # events; a frame that is so few behind is not called late


class Watched:
    """A frame and the server behind it; either may be missing.

    Parameters
    ----------
    frame : RollingFrame or None
        What is drawn.
    control : Control or None
        What is steered.
    hold : bool
        Whether the frame is kept alive.

    Attributes
    ----------
    draws : bool
        Whether there was a frame.
    problem : str or None
        Why the frame cannot be drawn.
    """

    def __init__(self, frame: RollingFrame | None, control: Control | None, *, hold: bool) -> None:
        self.control = control
        self.draws = frame is not None
        self.problem: str | None = None
        self._frame: Callable[[], RollingFrame | None] = lambda: None
        if frame is not None:
            self._frame = (lambda: frame) if hold else weakref.ref(frame)
        self._reconnects: list[int] = []  # when they were seen, us
        self._reconnects_seen = 0

    @property
    def frame(self) -> RollingFrame | None:
        """The frame; None if there is none, or nobody holds it any more."""
        return self._frame()

    @property
    def follower(self) -> Follower | None:
        """What fills the frame, the newest if there are several."""
        frame = self.frame
        followers = () if frame is None else frame.followers
        return followers[-1] if followers else None

    def settings(self) -> Settings | None:
        """Return what is in force; None if that is not known."""
        return None if self.control is None else self.control.look()

    def timeline(self) -> Timeline | None:
        """Return when the events happen; None if that is not known."""
        return None if self.control is None else self.control.timeline()

    @property
    def started(self) -> int | None:
        """When the stream began, microseconds since 1970; None if that is not known."""
        timeline = self.timeline()
        return None if timeline is None else timeline.entries[0].since

    def _entries(self) -> tuple[Entry, ...]:
        timeline = self.timeline()
        return () if timeline is None else tuple(timeline.entries)

    def is_over(self) -> bool:
        """Return whether no event can come any more."""
        follower = self.follower
        return self.frame is None or (follower is not None and not follower.running)

    def behind(self, settings: Settings | None) -> int | None:
        """Return how many events the server has that the frame has not; None if that is not known."""
        follower = self.follower
        if settings is None or follower is None or follower.next_number is None:
            return None
        return max(0, settings.next_number - follower.next_number)

    def lag(self, settings: Settings | None) -> float | None:
        """Return the seconds from the first event that the frame has not to the newest; None if not known."""
        behind, follower, timeline = self.behind(settings), self.follower, self.timeline()
        if settings is None or follower is None or follower.next_number is None or timeline is None:
            return None
        if not behind:
            return 0.0
        first, newest = (timeline.time(n) for n in (follower.next_number, settings.next_number - 1))
        return max(0, newest - first) / 1e6

    def note_reconnects(self, now: int) -> None:
        """Mark a new connection of the follower at `now` (microseconds since 1970)."""
        follower = self.follower
        if follower is not None and follower.reconnects > self._reconnects_seen:
            self._reconnects_seen = follower.reconnects
            self._reconnects.append(now)

    def state(self) -> tuple[str, str]:
        """Return the state of the stream in one word, and the reason in one phrase.

        Returns
        -------
        str
            live, paused, connecting, reconnecting, stopped, refused, or waiting.
        str
            The reason; may be empty.
        """
        if self.problem is not None:
            return "refused", self.problem
        settings = self.settings()
        follower = self.follower
        if follower is None:
            return self._state_without_follower(settings)
        state, reason = follower.state, follower.reason
        if isinstance(self.control, LocalControl) and not self.control.server.running:
            if state == "live":
                return "connecting", ""
            return "stopped", "the server was stopped"
        behind = self.behind(settings)
        if state in ("reconnecting", "connecting"):
            if behind:
                reason += f"{', ' if reason else ''}{behind:,} events behind"
            return state, reason
        if state == "live" and settings is not None:
            if behind and behind > max(_FEW_BEHIND, settings.rate):
                return "live", f"catching up, {behind:,} events behind"
            if settings.paused:
                return "paused", "no event happens until it is resumed"
        return state, reason

    def _state_without_follower(self, settings: Settings | None) -> tuple[str, str]:
        if self.draws:
            frame = self.frame
            if frame is None:
                return "stopped", "the frame is gone"
            return ("stopped", "the frame follows no stream") if len(frame) else ("waiting", "for events")
        if settings is None:
            return "connecting", ""
        if not settings.reachable:
            local = isinstance(self.control, LocalControl)
            return "stopped", "the server was stopped" if local else "the server cannot be reached"
        return ("paused", "no event happens until it is resumed") if settings.paused else ("live", "")

    def choices(self) -> dict[str, list[dict[str, Any]]]:
        """Return what the menus `scenarios` and `faults` offer; see `menus`."""
        settings = self.settings()
        known = () if self.control is None else self.control.known_scenarios()
        return {"scenarios": scenario_choices(known, settings), "faults": fault_choices(settings)}

    def marks(self) -> list[dict[str, Any]]:
        """Return what is marked on the time axis: changes of rate, pauses, scenarios, faults, reconnects.

        Each mark has a `kind`, a time `at` in seconds since 1970 and a `text`.
        """
        marks: list[dict[str, Any]] = []
        for before, entry in itertools.pairwise(self._entries()):
            changes = list(_changes(before, entry))
            if changes:
                text = ", ".join(text for _, text in changes)
                marks.append({"kind": changes[0][0], "at": entry.since / 1e6, "text": text})
        marks += [
            {"kind": "reconnect", "at": micros / 1e6, "text": "connected again"}
            for micros in self._reconnects
        ]
        return sorted(marks, key=lambda mark: mark["at"])[-_MOST_MARKS:]

    def asked(self) -> list[list[float]]:
        """Return when which rate was asked for: pairs of seconds and events per second, 0 in a pause."""
        return [[e.since / 1e6, 0.0 if e.paused else e.rate] for e in self._entries()[-_MOST_MARKS:]]

    def now(self, newest: int | None, seen_at: float) -> int:
        """Return the right end of the live time axis, microseconds since 1970.

        It is the clock of the server if that is this machine's. Else it goes on from the newest event, and
        does not move when no event can come.

        Parameters
        ----------
        newest : int or None
            Time of the newest event, microseconds since 1970.
        seen_at : float
            Value of `time.monotonic()` when that event was counted.
        """
        if newest is None or (self.control is not None and self.control.same_clock):
            return time.time_ns() // 1000
        follower = self.follower
        running = follower is not None and follower.running
        return newest + (round((time.monotonic() - seen_at) * 1e6) if running else 0)


def _changes(before: Entry, entry: Entry) -> Iterator[tuple[str, str]]:
    """Give the kind of each change between two entries, and its words; one entry may hold several."""
    if entry.scenarios != before.scenarios:
        yield "scenario", entry.scenario or f"end of {before.scenario}"
    if entry.faults != before.faults:
        yield "fault", f"faults: {fault_names(entry.faults)}" if entry.faults else "end of faults"
    if entry.paused and not before.paused:
        yield "pause", "paused"
    elif before.paused and not entry.paused:
        yield "resume", f"resumed, {entry.rate:,g}/s"
    elif entry.rate != before.rate:
        yield "rate", f"{before.rate:,g} → {entry.rate:,g}/s"
