"""A Unix socket to listen on: a file that only its owner can connect to, and that is removed afterwards."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from logistream.errors import RequestError, StreamError

__all__ = ["UnixSocket"]


class UnixSocket:
    """The file of a Unix socket.

    Parameters
    ----------
    path : path
        Where it is made; a file that a server left behind when it was killed is replaced.

    Raises
    ------
    RequestError
        If the system has no Unix sockets.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise RequestError("this system has no Unix sockets: use a host and a port")
        self.path = Path(path).absolute()
        self._file: tuple[int, int] | None = None  # device and inode

    def listen(self, backlog: int) -> socket.socket:
        """Return a socket that listens on the file, which is made.

        Raises
        ------
        StreamError
            If another program listens on it, something else is there, or the file cannot be made.
        """
        if self._is_left_behind():
            self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(os.fspath(self.path))
            self._file = _identity(self.path)
            self.path.chmod(0o600)  # nobody can connect before it listens
            listener.listen(backlog)
        except OSError as error:
            listener.close()
            self.remove()
            if error.errno == errno.EADDRINUSE:
                raise StreamError(
                    f"cannot listen on {self.path}: another server listens there, or it is another file; "
                    f"choose another path"
                ) from None
            reason = os.strerror(error.errno) if error.errno else f"{error}"  # a path that is too long
            raise StreamError(f"cannot listen on {self.path}: {reason}; choose another path") from error
        return listener

    def remove(self) -> None:
        """Remove the file, unless another server has replaced it."""
        with contextlib.suppress(OSError):
            if self._file is not None and _identity(self.path) == self._file:
                self.path.unlink()
        self._file = None

    def _is_left_behind(self) -> bool:
        """Return whether there is a socket on which nobody listens."""
        try:
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                return False
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                probe.connect(os.fspath(self.path))
        except ConnectionRefusedError:
            return True
        except OSError:  # it is not there, or belongs to somebody else
            return False
        return False


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
