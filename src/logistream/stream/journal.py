"""A timeline in a file, which several processes share: each reads and changes the same stream.

No process may make an event known of which another says that it does not happen. So an entry takes effect
`LEAD_MICROS` after the moment at which it is written, never earlier, and who has looked at the file knows the
timeline for certain up to as long after the look. Writers exclude each other and readers by a lock, and all
take the moment while they hold it: either a look comes first, and then the entry takes effect after all that
it made known, or it comes later, and sees the entry.

That rests on the clock of the machine, or on clocks that agree to much less than the lead. No process lets
its own run backwards, and no entry comes before the one before it; where the clock is set back, changes wait
until it has caught up.

An append-only file of JSON lines that several processes share, and that notices when it is damaged.

Each line is the JSON text of one value, a blank, and a CRC-32 in eight hexadecimal digits of that text and of
all those before it, so that a line that is changed, missing, added or moved does not go unnoticed. A last
line that is not whole is what remains of a process or a machine that stopped while it wrote: it is left out,
and cut away by the next who writes.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import sys
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logistream.errors import DataError, RequestError, StreamError
from logistream.stream.arrivals import Arrivals
from logistream.stream.timeline import Entry, Timeline
from logistream.times import wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Header = Mapping[str, str | int]

__all__ = ["LEAD_MICROS", "JournalTimeline", "LineFile", "create", "open_journal"]


logger = logging.getLogger(__name__)

_CHECKSUM = re.compile(rb" ([0-9a-f]{8})")
_RETRY = 0.0005  # seconds
_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0)

if sys.platform == "win32":
    import msvcrt

    _FAR = 0x7FFF_0000  # locks forbid reading there, so it is a byte far behind the end that is locked

    def _try_lock(descriptor: int, *, exclusive: bool) -> None:  # noqa: ARG001 - it has no shared locks
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int, *, exclusive: bool) -> None:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class LineFile:
    """One process's view of such a file; not for two threads at once.

    Parameters
    ----------
    path : Path
        A file that exists.

    Raises
    ------
    StreamError
        If the system does not let it be opened for reading and writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, _FLAGS)
        except OSError as error:
            raise StreamError(f"timeline {path} cannot be opened: {error.strerror}") from error
        self._end = 0  # of what has been read
        self._checksum = 0
        self._lines = 0
        self._left_out = b""

    def close(self) -> None:
        """Close it; closing it again does nothing."""
        if not self.closed:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._descriptor < 0

    @contextmanager
    def locked(self, *, exclusive: bool, within: float) -> Iterator[bool]:
        """Hold the lock: many may hold it who read, one who writes, no one of the others meanwhile.

        Parameters
        ----------
        exclusive : bool
            Whether to write.
        within : float
            Seconds after which to give up.

        Yields
        ------
        bool
            Whether it is held; if not, someone else holds it for longer.

        Raises
        ------
        StreamError
            If the file system has no locks.
        """
        held = self._acquire(exclusive, time.monotonic() + within)
        try:
            yield held
        finally:
            if held:
                _unlock(self._descriptor)

    def _acquire(self, exclusive: bool, deadline: float) -> bool:
        while True:
            try:
                _try_lock(self._descriptor, exclusive=exclusive)
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_RETRY)
            except OSError as error:
                raise StreamError(f"timeline {self.path} cannot be locked: {error.strerror}") from error
            else:
                return True

    def head(self, size: int) -> bytes:
        """Return the first bytes of the file, whatever they are."""
        return self._bytes(0, size)

    def read(self) -> list[Any]:
        """Return the values of the lines that are new since the last call; hold the lock.

        Raises
        ------
        DataError
            If a line is damaged that is not the last one, or the file is shorter than it was.
        """
        size = os.fstat(self._descriptor).st_size
        if size == self._end:
            return []
        if size < self._end:
            raise DataError(f"timeline {self.path} lost its end while in use: restore it from a copy")
        data = self._bytes(self._end, size - self._end)
        values, begin, checksum = [], 0, self._checksum
        while (end := data.find(b"\n", begin)) >= 0:
            text, _, digits = data[begin:end].rpartition(b" ")
            seen = zlib.crc32(text, checksum)
            if digits != b"%08x" % seen:
                break
            try:
                values.append(json.loads(text))
            except ValueError:
                raise self._damaged(len(values)) from None
            begin, checksum = end + 1, seen
        self._leave_out(data[begin:], checksum, len(values))
        self._end += begin
        self._checksum = checksum
        self._lines += len(values)
        return values

    def _leave_out(self, rest: bytes, checksum: int, lines: int) -> None:
        """Tell of a last line that is not whole; raise if it is not the last, or more, or the first."""
        followed = b"\n" in rest[:-1] or any(
            int(match[1], 16) == zlib.crc32(rest[: match.start()], checksum) and len(rest) - match.end() > 1
            for match in _CHECKSUM.finditer(rest)
        )
        if rest and (followed or not self._lines + lines):
            raise self._damaged(lines)
        if rest and rest != self._left_out:
            # Logged, not warned of: it happens on a server's threads, where a warning may reach no one.
            logger.warning(
                "timeline %s: line %d, the last, is not whole and is left out; "
                "what was being written when a process or the machine stopped has not happened",
                self.path,
                self._lines + lines + 1,
            )
        self._left_out = rest

    def _damaged(self, lines: int) -> DataError:
        return DataError(
            f"timeline {self.path} is damaged in line {self._lines + lines + 1}: "
            f"restore it from a copy, or begin another under a new name"
        )

    def append(self, value: Any) -> None:  # noqa: ANN401 - any JSON value
        """Add a line; hold the lock for writing and have read what is new.

        Raises
        ------
        StreamError
            If it cannot be written, and then nothing was; or if the file was deleted.
        """
        line, checksum = _line(value, self._checksum)
        status = os.fstat(self._descriptor)
        if status.st_nlink == 0:
            raise StreamError(f"timeline {self.path} was deleted or replaced while in use: start again")
        try:
            if status.st_size != self._end:
                os.ftruncate(self._descriptor, self._end)
            os.lseek(self._descriptor, self._end, os.SEEK_SET)
            _write(self._descriptor, line)
        except OSError as error:
            with suppress(OSError):  # if that fails too, part of a line stays, which is left out
                os.ftruncate(self._descriptor, self._end)
            raise StreamError(f"timeline {self.path} cannot be written: {error.strerror}") from error
        self._end += len(line)
        self._checksum = checksum
        self._lines += 1
        self._left_out = b""

    def sync(self) -> None:
        """Wait until the disk has what was written.

        Raises
        ------
        StreamError
            If the disk reports an error.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise StreamError(
                f"timeline {self.path} was changed, but the disk may lose it: {error.strerror}"
            ) from error

    def _bytes(self, start: int, size: int) -> bytes:
        os.lseek(self._descriptor, start, os.SEEK_SET)
        parts = []
        while size > 0 and (part := os.read(self._descriptor, size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def create(path: Path, values: Iterable[Any]) -> bool:
    """Make a file with these values as its first lines, whole and on the disk, unless there is one.

    Returns
    -------
    bool
        Whether it was made; of several processes that try, one makes it.

    Raises
    ------
    StreamError
        If the system does not let it be made.
    """
    # Under another name first, so that nobody ever sees a part of it.
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    checksum = 0
    try:
        try:
            descriptor = os.open(scratch, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                for value in values:
                    line, checksum = _line(value, checksum)
                    _write(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.link(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
            _sync_folder(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise StreamError(f"timeline {path} cannot be made: {error.strerror}") from error
    return True


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder, where the system can be asked for that."""
    if sys.platform != "win32":
        with suppress(OSError):  # some network file systems cannot
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _line(value: Any, checksum: int) -> tuple[bytes, int]:  # noqa: ANN401 - any JSON value
    text = json.dumps(value, allow_nan=False).encode()
    checksum = zlib.crc32(text, checksum)
    return b"%s %08x\n" % (text, checksum), checksum


def _write(descriptor: int, data: bytes) -> None:
    """Write all; it takes more than one call only where there is no room, to learn why."""
    while data:
        data = data[os.write(descriptor, data) :]


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
