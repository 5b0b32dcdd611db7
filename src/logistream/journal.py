"""A timeline in a file, which several processes share: each reads and changes the same stream.

No process may make an event known of which another says that it does not happen. So an entry takes effect
`LEAD_MICROS` after the moment at which it is written, never earlier, and who has looked at the file knows the
timeline for certain up to as long after the look. Writers exclude each other and readers by a lock, and all
take the moment while they hold it: either a look comes first, and then the entry takes effect after all that
it made known, or it comes later, and sees the entry.

That rests on the clock of the machine, or on clocks that agree to much less than the lead. No process lets
its own run backwards, and no entry comes before the one before it; where the clock is set back, changes wait
until it has caught up.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logistream.arrivals import Arrivals
from logistream.entry import Entry
from logistream.errors import DataError, RequestError, StreamError
from logistream.instants import wall_clock
from logistream.linefile import LineFile, create
from logistream.timeline import Timeline

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    Header = Mapping[str, str | int]

__all__ = ["LEAD_MICROS", "JournalTimeline", "open_journal"]

LEAD_MICROS = 50_000
"""Microseconds from the moment at which an entry is written to that at which it takes effect."""

_FORMAT = "logistream_timeline"
_VERSION = 1
_HEAD = re.compile(rb'\{"logistream_timeline": (\d{1,9})[,}]')
_PATIENCE = 5.0  # seconds to wait for another process that writes
_GLANCE = 0.001  # the same for a look that will be repeated soon


def open_journal(
    path: str | os.PathLike[str],
    *,
    header: Header,
    begin: Callable[[int], Entry],
    clock: Callable[[], int] = wall_clock,
) -> JournalTimeline:
    """Open the timeline in a file; make the file if there is none.

    Parameters
    ----------
    path : path-like
        Where it is. Its folder must exist.
    header : mapping of str to str or int
        What the stream is made of besides the timeline. `arrivals` and `seed` in it say how the events follow
        each other, `even` and 0 if they are left out. It must agree with that in the file.
    begin : callable
        Takes the moment, in microseconds since the Unix epoch, and returns the first entry of a new timeline.
    clock : callable
        Returns the time in microseconds since the Unix epoch.

    Raises
    ------
    RequestError
        If the timeline in the file belongs to something else than the header says.
    DataError
        If the file is damaged, is none of this kind, or is one of a later version.
    StreamError
        If the system does not let the file be made, opened or locked.
    """
    place = Path(path).absolute()
    try:
        exists = place.exists()
    except OSError as error:
        raise StreamError(f"timeline {place} cannot be opened: {error.strerror}") from error
    if not exists:
        create(place, [{_FORMAT: _VERSION, **header}, begin(clock()).to_json()])
    return JournalTimeline(place, header, clock)


class JournalTimeline(Timeline):
    """A timeline in a file that exists; made by `open_journal`.

    Whatever has been read of it stays usable after `close`, and if the file cannot be read any more.
    """

    shared = True

    def __init__(self, path: Path, header: Header, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._latest = 0
        self._failure: DataError | None = None
        self._syncing = threading.Lock()
        self._file = LineFile(path)
        try:
            with self._held(exclusive=False):
                moment = self._now()
                _require_ours(path, self._file.head(64))
                found, *entries = self._file.read() or [{}]
            self._known = moment + LEAD_MICROS
            _require_same(path, found, {_FORMAT: _VERSION, **header})
            arrivals = Arrivals(header.get("arrivals", "even"), header.get("seed", 0))  # type: ignore[arg-type] # it checks
            with self._blamed():
                super().__init__(map(Entry.from_json, entries), arrivals)
        except BaseException:
            self._file.close()
            raise

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._file.path

    def close(self) -> None:
        """Close the file; closing it again does nothing."""
        with self._lock, self._syncing:
            self._file.close()

    def known_until(self, now: int) -> int:
        """Return the moment up to which this timeline is certain, at most `now` (microseconds).

        That is `LEAD_MICROS` after the last look at the file: by `refresh`, `change`, or on opening.
        """
        return min(now, self._known)

    def refresh(self) -> bool:
        """Look at the file; return whether other processes have added entries.

        To be called every few milliseconds: it takes microseconds if there is nothing new, and gives up at
        once if another thread is at it and after a millisecond if another process is, until the next call.

        Raises
        ------
        DataError
            If the file was damaged while it was in use; what is known until then stays certain.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._file.closed:
                return False
            with self._file.locked(exclusive=False, within=_GLANCE) as held:
                if not held:
                    return False
                moment = self._now()
                found = self._read()
            self._known = moment + LEAD_MICROS
            return found
        finally:
            self._lock.release()

    def change(
        self, now: int, *, rate: float | None = None, paused: bool | None = None, scenario: str | None = None
    ) -> Entry:
        """Append an entry with the given settings changed and return it; the last one if nothing changes.

        As in a timeline in memory, but `LEAD_MICROS` after the moment at which it is written, which is not
        before `now` (microseconds). When it returns, the entry is on the disk.

        Raises
        ------
        StreamError
            For a rate outside `MIN_RATE` to `MAX_RATE`; if the file is closed, cannot be written, or another
            process does not let go of it.
        DataError
            If the file was damaged while it was in use.
        """
        with self._lock:
            if self._file.closed:
                raise StreamError(f"timeline {self.path} is closed")
            with self._held(exclusive=True):
                moment = self._now(now)
                self._read()
                self._known = moment + LEAD_MICROS
                entry = self._changed(self._known, rate, paused, scenario)
                if entry is self.last:
                    return entry
                self._file.append(entry.to_json())
                self._entries = (*self._entries, entry)
        with self._syncing:  # not under the lock, which would keep others waiting for the disk
            if not self._file.closed:
                self._file.sync()
        return entry

    @contextmanager
    def _held(self, *, exclusive: bool) -> Iterator[None]:
        """Hold the lock of the file; raise if it cannot be had."""
        with self._file.locked(exclusive=exclusive, within=_PATIENCE) as held:
            if not held:
                raise StreamError(
                    f"timeline {self.path} was held by another process for {_PATIENCE:g} s: is that stopped?"
                )
            yield

    def _now(self, least: int = 0) -> int:
        """Return the time, never less than before."""
        self._latest = max(self._latest, least, self._clock())
        return self._latest

    def _read(self) -> bool:
        """Take in what is new in the file, whose lock is held; return whether there was anything."""
        if self._failure is not None:
            raise self._failure
        entries = self._file.read()
        if entries:
            with self._blamed():
                self._extend(map(Entry.from_json, entries))
        return bool(entries)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Say of entries that cannot be used in which file they are, now and from now on."""
        try:
            yield
        except (DataError, StreamError) as error:
            self._failure = DataError(f"timeline {self.path} is damaged: {error}")
            raise self._failure from None


def _require_ours(path: Path, head: bytes) -> None:
    """Raise if a file that begins so is no timeline, or one of a later version."""
    match = _HEAD.match(head)
    if match is None:
        what = "is not a timeline file" if head else "is empty, which no timeline file is"
        raise DataError(f"{path} {what}: name another file, or one that does not exist yet")
    if int(match[1]) > _VERSION:
        raise DataError(f"timeline {path} was written by a later version of Logistream: update this one")


def _require_same(path: Path, found: Any, header: Header) -> None:  # noqa: ANN401 - any JSON value
    """Raise if what a file belongs to differs from what was asked for."""
    if not isinstance(found, dict) or not found:
        raise DataError(f"timeline {path} is damaged in line 1: name another file")
    differing = [
        f"{key.replace('_', ' ')} {found.get(key, 'none')!s:.32}, not {header.get(key, 'none')!s:.32}"
        for key in dict.fromkeys((*found, *header))
        if found.get(key) != header.get(key)
    ]
    if differing:
        raise RequestError(
            f"timeline {path} belongs to {', and to '.join(differing)}: ask for that, or name another file"
        )
