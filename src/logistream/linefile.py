"""An append-only file of JSON lines that several processes share, and that notices when it is damaged.

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
import time
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from logistream.errors import DataError, StreamError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["LineFile", "create"]

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
