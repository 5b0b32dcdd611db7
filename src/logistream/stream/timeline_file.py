"""A timeline in an SQLite file, which several processes share: each reads and changes the same stream.

Why a change takes effect 50 ms later: no process may deliver an event that an entry of another process then
moves. So a process first promises what it may deliver, and no entry reaches behind a promise. SQLite's locks
make this safe:

- A reader holds the RESERVED lock while it reads the clock and the file, and then promises the next
  `LEAD_MICROS` in a file beside the timeline (`promise`). Until then it knows the timeline for certain.
- A writer holds the EXCLUSIVE lock from before it reads the clock and the promise until its entry is
  committed. The entry takes effect where the promise ends, or `LEAD_MICROS` later than now.

So this does not rest on the clocks of several machines being equal, or on a clock never being set back. If
clocks differ, changes made by a server whose clock is behind are late by that much on its clock; they are
refused if that is more than a few seconds. No process lets its own clock run backwards, and one that starts
continues from what was promised.

The table `timeline` has a row for the header (number 0) and one for each entry, as JSON. `crc32` is the
checksum of that and all rows before it, because SQLite notices a damaged structure but no changed digit.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import stat
import sys
import zlib
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from logistream.errors import DataError, RequestError, StreamError, shorten
from logistream.stream.arrivals import Arrivals
from logistream.stream.promise import Promise
from logistream.stream.timeline import Entry, Timeline
from logistream.times import rfc3339, wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from logistream.model.scenario import Scenario
    from logistream.stream.faults import Fault

    Header = Mapping[str, str | int]

__all__ = ["LEAD_MICROS", "FileTimeline", "open_timeline_file", "timeline_table"]


LEAD_MICROS = 50_000
"""Microseconds from the writing of an entry until it takes effect; the top of this module says why.

A busy server reads the file 40 times a second, so it can miss a read and still know what is certain.
"""

_LATEST_EFFECT = 5_000_000
"""Microseconds after which a change must have taken effect; one that would be later is refused."""

_APPLICATION_ID = 0x4C_6F_67_69  # "Logi", in the header of the SQLite file
_VERSION = 1  # `user_version` in the header of the SQLite file
_OTHER = "name another file, or one that does not exist yet"
_LOCK_SECONDS = 5.0  # to wait for another process that holds the lock
_PAGE = 1024  # bytes; a timeline is short
_SYSTEM = {  # SQLite's result codes for faults of the system; all others mean a damaged file
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_AUTH,
}

_TABLE = "CREATE TABLE timeline (number INTEGER PRIMARY KEY, json TEXT NOT NULL, crc32 INTEGER NOT NULL)"
_EMPTY = f"""
    PRAGMA page_size = {_PAGE};
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {_VERSION};
    {_TABLE};
"""
_INSERT = "INSERT INTO timeline VALUES (?, ?, ?)"


def open_timeline_file(
    path: str | os.PathLike[str],
    *,
    header: Header,
    first_entry: Callable[[int], Entry],
    clock: Callable[[], int] = wall_clock,
) -> FileTimeline:
    """Open the timeline in a file; make the file if there is none.

    Parameters
    ----------
    path : path-like
        Where it is. Its folder must exist.
    header : mapping of str to str or int
        What the stream is made of besides the timeline. `arrivals` and `seed` in it determine how the events
        follow each other, `even` and 0 if they are left out. It must agree with that in the file.
    first_entry : callable
        Takes the time in microseconds since the Unix epoch, and returns the first entry of a new timeline.
    clock : callable
        Returns the time in microseconds since the Unix epoch.

    Raises
    ------
    RequestError
        If the timeline in the file belongs to another stream than that of the header.
    DataError
        If the file is damaged, is not a timeline, or was written by a later version.
    StreamError
        If the system does not let the file be made, opened or locked.
    """
    place = Path(path).absolute()
    try:
        exists = place.exists()
    except OSError as error:
        raise StreamError(f"timeline {place} cannot be opened: {error.strerror}") from error
    if not exists:
        _create(place, (dict(header), first_entry(clock()).to_json()))
    timeline = FileTimeline(place, header, clock)
    try:
        timeline.begin()
    except BaseException:
        timeline.close()
        raise
    return timeline


def timeline_table(path: str | os.PathLike[str]) -> str:
    """Return the timeline in a file as a printable table; errors as for `open_timeline_file`."""
    place = Path(path).absolute()
    if not place.exists():
        raise StreamError(f"there is no timeline file at {place}: check the path")
    timeline = FileTimeline(place)
    timeline.close()
    promised = timeline.promised()
    delivered = f"before {timeline.count(promised):,}, by {rfc3339(promised)}" if promised else "none"
    lines = [
        *(f"{key.replace('_', ' ')}: {value}" for key, value in timeline.header.items()),
        f"events that may have been delivered: {delivered}",
        "",
        f"{'from event':>16}  {'since (UTC)':27}  {'events/s':>14}",
    ]
    for entry in timeline.entries:
        faults = "; ".join(fault.words for fault in entry.faults)
        state = "  ".join(filter(None, ("paused" if entry.paused else "", entry.scenario, faults)))
        lines.append(f"{entry.first:>16,}  {rfc3339(entry.since)}  {entry.rate:>14,.12g}  {state}".rstrip())
    return "\n".join(lines)


class FileTimeline(Timeline):
    """A timeline in a file that exists; made by `open_timeline_file`.

    What has been read of it stays usable after `close`, and if the file cannot be read any more.

    Attributes
    ----------
    path : Path
        Where the file is.
    header : mapping of str to str or int
        What the stream is made of besides the timeline.
    """

    shared = True

    def __init__(
        self, path: Path, header: Header | None = None, clock: Callable[[], int] = wall_clock
    ) -> None:
        self.path = path
        self._clock = clock
        self._known = 0
        self._rows = self._checksum = 0  # what has been read: how many rows, and the checksum of the last
        self._database: sqlite3.Connection | None = None
        try:
            self._file = os.stat(path)  # noqa: PTH116 - to compare with later
        except OSError as error:
            raise StreamError(f"timeline {path} cannot be opened: {error.strerror}") from error
        if not stat.S_ISREG(self._file.st_mode) and not stat.S_ISDIR(self._file.st_mode):
            raise DataError(f"{path} is not a file on a disk, so it is not a timeline file: {_OTHER}")
        if stat.S_ISDIR(self._file.st_mode):
            raise StreamError(f"timeline {path} cannot be opened: it is a folder")
        with self._translated_errors("opened"):
            self._database = sqlite3.connect(
                f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
            )
        try:
            with self._translated_errors("read"):
                self._database.text_factory = bytes
                _set_lock_wait(self._database, _LOCK_SECONDS)
                self._require_timeline(self._database)
                self._database.execute("PRAGMA synchronous = EXTRA")
                values, checksum = self._new_values(self._database)
                ((identity,),) = self._database.execute("SELECT crc32 FROM timeline WHERE number = 1")
            self._promise = Promise(path, identity)
            self.header = self._header_of(values[0])
            _require_same(path, self.header, self.header if header is None else header)
            with self._naming_file():
                arrivals = Arrivals(self.header.get("arrivals", "even"), self.header.get("seed", 0))  # type: ignore[arg-type] # checks them
                super().__init__(map(Entry.from_json, values[1:]), arrivals)
            self._rows, self._checksum = len(values), checksum
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the file; closing it again does nothing."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None

    def promised(self) -> int:
        """Return the time up to which any process may have delivered events; 0 for none."""
        return self._promise.read()

    @property
    def reached(self) -> int:
        """Microseconds since 1970: the latest time that the clock of any process has shown."""
        return self._known - LEAD_MICROS

    def begin(self) -> None:
        """Continue where the processes before have stopped, also if the clock is behind them.

        Raises
        ------
        DataError, StreamError
            As for `refresh`; and if the file stays locked by another process.
        """
        promised = self.promised()
        if promised > self._clock() + LEAD_MICROS:
            self.latest = promised
        with self._lock:
            if self._database is not None:
                _set_lock_wait(self._database, _LOCK_SECONDS)
                self._refresh(self._database)

    def known_until(self, now: int) -> int:
        """Return the time up to which this timeline is certain, at most `now` (microseconds).

        That is `LEAD_MICROS` after the file was last read, by `refresh`, by `change`, or on opening; or later
        if another process has promised more.
        """
        return min(now, self._known)

    def refresh(self) -> bool:
        """Read the file; return whether that was possible at once, without a wait for another writer.

        It takes microseconds if there is nothing new.

        Raises
        ------
        DataError
            If the file was damaged while it was in use; what is known until then stays certain.
        StreamError
            If the file cannot be read.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._database is None:
                return False
            _set_lock_wait(self._database, 0)
            self._refresh(self._database)
        except _LockedError:
            return False
        else:
            return True
        finally:
            self._lock.release()

    def change(
        self,
        now: int,
        *,
        rate: float | None = None,
        paused: bool | None = None,
        scenarios: tuple[Scenario, ...] | None = None,
        faults: tuple[Fault, ...] | None = None,
    ) -> Entry:
        """Append an entry with the given settings changed and return it; the last one if nothing changes.

        As in a timeline in memory, but `LEAD_MICROS` after the time at which it is written, which is not
        before `now` (microseconds), and after everything that any process may have delivered. When it
        returns, the entry is on the disk.

        Raises
        ------
        RequestError
            For a value that is not allowed.
        StreamError
            If the file is closed, cannot be written, or stays locked by another process; or if a process
            whose clock is more than some seconds ahead has delivered events.
        DataError
            If the file was damaged while it was in use.
        """
        with self._lock:
            if self._database is None:
                raise StreamError(f"timeline {self.path} is closed")
            _set_lock_wait(self._database, _LOCK_SECONDS)
            with self._translated_errors("written"), _locked(self._database, "EXCLUSIVE"):
                timestamp = self._now(now)  # under the lock
                self._read(self._database)
                self._require_recent(self.promised(), timestamp)
                self._promise_until(timestamp + LEAD_MICROS)
                entry = self._changed(self._known, rate, paused, scenarios, faults)
                if entry is self.last:
                    return entry
                self._require_in_place()
                string, checksum = _written(entry.to_json(), self._checksum)
                self._database.execute(_INSERT, (self._rows, string, checksum))
            self._entries = (*self._entries, entry)
            self._rows, self._checksum = self._rows + 1, checksum
            return entry

    def _now(self, least: int = 0) -> int:
        """Return the time, never less than before."""
        self.latest = max(self.latest, least, self._clock())
        return self.latest

    def _refresh(self, database: sqlite3.Connection) -> None:
        """Read the file, and promise what is then known."""
        with self._translated_errors("read"), _locked(database, "IMMEDIATE"):
            timestamp = self._now()
            self._read(database)
            self._promise_until(timestamp + LEAD_MICROS)

    def _promise_until(self, until: int) -> None:
        """Promise the events up to a time; to be called under a lock that excludes other writers."""
        promised = self.promised()
        if until > promised:
            self._promise.write(until)
        self._known = max(until, promised)

    def _require_recent(self, promised: int, now: int) -> None:
        """Raise if a change would take effect too late, because it must come after what was promised."""
        if promised > now + LEAD_MICROS + _LATEST_EFFECT:
            ahead = promised - LEAD_MICROS - self._clock()  # `now` stands still if the clock was set back
            raise StreamError(
                f"a server that shares timeline {self.path} has a clock {ahead / 1e6:,.0f} s "
                f"ahead of this one and may have delivered the events until {rfc3339(promised)}, which "
                f"must not change: set the clocks, and try again after that time"
            )

    def _read(self, database: sqlite3.Connection) -> None:
        """Read the new rows of the file."""
        with self._translated_errors("read"):
            values, checksum = self._new_values(database)
        with self._naming_file():
            self._extend(map(Entry.from_json, values))
        self._rows, self._checksum = self._rows + len(values), checksum

    def _new_values(self, database: sqlite3.Connection) -> tuple[list[Any], int]:
        """Return the values of the rows that are not read yet, and the checksum of the last row."""
        rows = database.execute(
            "SELECT number, json, crc32 FROM timeline WHERE number >= ? ORDER BY number",
            (self._rows - 1,),  # from the last known row on, which must still be there
        ).fetchall()
        if self._rows and (not rows or (rows[0][0], rows[0][2]) != (self._rows - 1, self._checksum)):
            raise self._damaged("rows have been removed from it while it was in use")
        values, checksum = [], self._checksum
        for number, (place, string, stored) in enumerate(rows[bool(self._rows) :], self._rows):
            if place != number or not isinstance(string, bytes) or zlib.crc32(string, checksum) != stored:
                raise self._damaged(f"row {number} is not what was written")
            try:
                values.append(json.loads(string))
            except (ValueError, RecursionError) as error:
                raise self._damaged(f"row {number} is no JSON that can be read: {error}") from error
            checksum = stored
        if self._rows + len(values) < 2:
            raise self._damaged("it has no entry")
        return values, checksum

    def _header_of(self, value: object) -> Header:
        """Return the header of a file, or raise if it cannot be one."""
        if not isinstance(value, dict) or not all(type(item) in (str, int) for item in value.values()):
            raise self._damaged("its header is no JSON object of strings and whole numbers")
        return value

    def _require_timeline(self, database: sqlite3.Connection) -> None:
        """Raise if the file is not a timeline, was written by a later version, or has a damaged structure."""
        if self._file.st_size == 0:
            raise DataError(f"{self.path} is empty, so it is not a timeline file: {_OTHER}")
        try:
            ((kind,),) = database.execute("PRAGMA application_id")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
                raise
            kind = None
        if kind != _APPLICATION_ID:
            raise DataError(f"{self.path} is not a timeline file: {_OTHER}")
        ((version,),) = database.execute("PRAGMA user_version")
        if version > _VERSION:
            raise DataError(
                f"timeline {self.path} was written by a later version of Logistream: update this one"
            )
        # A write-ahead log, which stays switched on in a file, would let others read while we write.
        ((mode,),) = database.execute("PRAGMA journal_mode = DELETE")
        if mode != b"delete":
            raise StreamError(f"timeline {self.path} has the journal mode {mode.decode()}: set it to delete")
        # A stranger's view or trigger could compute for ever.
        if {sql for (sql,) in database.execute("SELECT sql FROM sqlite_master")} - {_TABLE.encode()}:
            raise self._damaged("it has other tables, or views")
        ((finding,), *_) = database.execute("PRAGMA integrity_check(1)")
        if finding != b"ok":
            raise self._damaged(" ".join(finding.decode(errors="replace").split()))

    def _require_in_place(self) -> None:
        """Raise if the open file is not the one at its path any more, or has lost its end."""
        try:
            found = os.stat(self.path)  # noqa: PTH116
            same = os.path.samestat(found, self._file) and found.st_size >= self._file.st_size
        except OSError:
            same = False
        if not same:
            raise StreamError(
                f"timeline {self.path} was deleted, replaced or cut short while in use: start again"
            )

    @contextmanager
    def _translated_errors(self, what: str) -> Iterator[None]:
        """Raise an error of SQLite as one of ours, whose message is a sentence."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter for a message that quotes damage
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise _LockedError(
                    f"timeline {self.path} is locked by another process (waited {_LOCK_SECONDS:g} s): "
                    f"check whether that process hangs"
                ) from error
            if code & 0xFF in _SYSTEM and code != sqlite3.SQLITE_IOERR_SHORT_READ:
                raise StreamError(f"timeline {self.path} cannot be {what}: {error}") from error
            raise self._damaged(str(error)) from error

    @contextmanager
    def _naming_file(self) -> Iterator[None]:
        """Name the file in the errors about entries that cannot be used."""
        try:
            yield
        except (DataError, RequestError, StreamError) as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, why: str) -> DataError:
        return DataError(
            f"timeline {self.path} is damaged ({shorten(why, 300)}): restore it from a copy, "
            f"or name another file"
        )


class _LockedError(StreamError):
    """Another process holds the lock of the file."""


def _create(path: Path, values: tuple[Any, ...]) -> None:
    """Make a file with these values in its rows, whole and on the disk, unless there is one.

    If several processes try, one of them makes it.
    """
    if not path.parent.is_dir():
        raise StreamError(f"timeline {path} cannot be made: there is no folder {path.parent}")
    # Under another name first, so that no process ever sees a part of it.
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        with closing(sqlite3.connect(scratch)) as database:
            database.executescript(_EMPTY)
            checksum = 0
            for number, value in enumerate(values):
                string, checksum = _written(value, checksum)
                database.execute(_INSERT, (number, string, checksum))
            database.commit()
        os.link(scratch, path)
    except FileExistsError:
        return
    except (sqlite3.Error, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StreamError(f"timeline {path} cannot be made: {reason}") from error
    finally:
        scratch.unlink(missing_ok=True)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    if sys.platform != "win32":
        with suppress(OSError):  # some network file systems cannot
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _written(value: Any, checksum: int) -> tuple[str, int]:  # noqa: ANN401 - any JSON value
    """Return the JSON string of a row, and its checksum, which continues that of the row before."""
    string = json.dumps(value, allow_nan=False)
    return string, zlib.crc32(string.encode(), checksum)


def _set_lock_wait(database: sqlite3.Connection, seconds: float) -> None:
    """Set how long to wait for a lock that another process holds."""
    database.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")


@contextmanager
def _locked(database: sqlite3.Connection, kind: Literal["IMMEDIATE", "EXCLUSIVE"]) -> Iterator[None]:
    """Keep others from writing (EXCLUSIVE: from reading too); commit in the end, or undo all on an error."""
    database.execute(f"BEGIN {kind}")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            with suppress(sqlite3.Error):  # the next who opens the file undoes it
                database.execute("ROLLBACK")
        raise


def _require_same(path: Path, found: Header, header: Header) -> None:
    """Raise if the header of a file differs from the one requested."""
    differing = [
        f"{key.replace('_', ' ')} {found.get(key, 'none')!s:.32}, not {header.get(key, 'none')!s:.32}"
        for key in dict.fromkeys((*found, *header))
        if found.get(key) != header.get(key)
    ]
    if differing:
        raise RequestError(
            f"timeline {path} belongs to {', and to '.join(differing)}: use that, or name another file"
        )
