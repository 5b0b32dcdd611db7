"""Up to which time any server of a timeline file may have delivered events: a small file beside it.

It is read and written only under the lock of the timeline file. It need not survive a loss of power, only the
end of a process, so it is never waited for: a promise costs microseconds. A file that is missing, damaged or
of another timeline counts as no promise.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from logistream.errors import StreamError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Promise"]


_SIZE = 43  # bytes of a promise
_LAST = 253_402_300_800 * 10**6 - 1  # microseconds: the end of the year 9999


class Promise:
    """The promise of all servers that share a timeline.

    Parameters
    ----------
    timeline : Path
        The timeline file.
    identity : int
        What tells this timeline from others that had the same path.
    """

    def __init__(self, timeline: Path, identity: int) -> None:
        self.path = timeline.with_name(f"{timeline.name}-promised")
        self._identity = identity

    def read(self) -> int:
        """Return the time up to which events may have been delivered, in microseconds since 1970; 0 for none.

        Raises
        ------
        StreamError
            If the system does not let the file be read.
        """
        # Opened each time: on a network file system this is what shows the changes of other machines.
        try:
            descriptor = os.open(self.path, os.O_RDONLY | _NONBLOCK)
            try:
                content = os.read(descriptor, _SIZE)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StreamError(f"{self.path} cannot be read: {error.strerror}") from error
        with suppress(ValueError):
            until = int(content[:20])
            if until <= _LAST and content == self._content(until):
                return until
        return 0

    def write(self, until: int) -> None:
        """Promise the events up to a time; errors as for `read`."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | _NONBLOCK, 0o666)
            try:
                os.write(descriptor, self._content(until))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StreamError(f"{self.path} cannot be written: {error.strerror}") from error

    def _content(self, until: int) -> bytes:
        """Return a line of fixed length, so that it is replaced in place: time, identity, checksum."""
        content = b"%020d %010d" % (until, self._identity)
        return b"%s %010d\n" % (content, zlib.crc32(content))


_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a named pipe in its place must not stop the server
