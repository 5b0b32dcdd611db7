"""Wait until another process changes a file."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FileWatch"]


_POLL = 0.04  # seconds between two looks at the file, where the system does not report changes
_IN_MODIFY = 0x2
_EVENTS = 4096  # bytes that are read at once


class FileWatch:
    """Notices that a file is written; a context manager for use within a running event loop.

    Linux reports changes by inotify, at no cost while there are none; elsewhere the file is looked at 25
    times a second.

    What another machine writes to a network file system is not reported by inotify. There a server notices a
    change when the next event is due, when it is asked for its state, or after a second, because it reads the
    timeline before it delivers or answers anything. So nothing is ever wrong, and from 40 events a second on
    nothing is late; with fewer, the first events after a change can be late by the time between two events
    or a second, whichever is less (measured: by up to 0.4 s at 2 events a second).

    Parameters
    ----------
    path : Path
        The file. If it is replaced, the old one is watched.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = asyncio.Event()
        self._inotify: int | None = None
        self._seen: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        self._seen = self._look()
        self._inotify = _watch(self._path)
        if self._inotify is not None:
            asyncio.get_running_loop().add_reader(self._inotify, self._drain, self._inotify)
        return self

    def __exit__(self, *_: object) -> None:
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = None

    async def change(self, within: float) -> None:
        """Return when the file has been written since the last call, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._inotify is None and not self._changed.is_set():
                    await asyncio.sleep(_POLL)
                    self._compare()
                await self._changed.wait()
        self._changed.clear()

    def _drain(self, descriptor: int) -> None:
        os.read(descriptor, _EVENTS)
        self._changed.set()

    def _compare(self) -> None:
        found = self._look()
        if found != self._seen:
            self._seen = found
            self._changed.set()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - as the name of the call
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size


def _watch(path: Path) -> int | None:
    """Return a descriptor that can be read when the file was written; None if the system has none."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(path), _IN_MODIFY) < 0:
        os.close(descriptor)
        return None
    return descriptor
