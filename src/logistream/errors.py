"""The exceptions of Logistream, and the functions that shorten what their messages quote.

LogistreamError
├── DataError (ValueError): a file or frame is not what was expected
├── ModelError (ValueError): a model file is damaged, foreign or of a later version
├── RequestError (ValueError): a parameter that a caller sent is not allowed
│   └── NotYetError: a requested event has not happened yet
├── StreamError (RuntimeError): the stream cannot do that in its present state
├── PortInUseError (OSError): another program listens on the port
├── MissingPackageError (ImportError): a part of this package needs one that is not installed
└── MissingJavaError (RuntimeError): Spark needs Java

and two warnings:
DataWarning (UserWarning): a file may be misread, or a column is left out
RequestWarning (UserWarning): what a caller asked for takes long
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "DataError",
    "DataWarning",
    "LogistreamError",
    "MissingJavaError",
    "MissingPackageError",
    "ModelError",
    "NotYetError",
    "PortInUseError",
    "RequestError",
    "RequestWarning",
    "StreamError",
    "listed",
    "shorten",
]


_MAX_SHOWN = 10  # values that `listed` names


class LogistreamError(Exception):
    """Base of all errors of this package; its message is one sentence for the user."""


class DataError(LogistreamError, ValueError):
    """A table is not what was expected: a wrong file, missing columns, nothing to fit."""


class DataWarning(UserWarning):
    """A file may have been misread, or a column cannot be learned; the message says what was done."""


class RequestWarning(UserWarning):
    """What a caller asked for takes long; the text says why."""


class ModelError(LogistreamError, ValueError):
    """A model file is damaged, truncated, foreign or newer than this version can read."""


class RequestError(LogistreamError, ValueError):
    """A value that a caller gave is not allowed; the message names the value and what is allowed."""


def shorten(string: str | bytes, limit: int = 60) -> str:
    """Return a string for a message; a string of more than `limit` characters loses its middle."""
    shown = string if isinstance(string, str) else string.decode("utf-8", "replace")
    half = limit // 2
    return shown if len(shown) <= limit else f"{shown[:half]} ... {shown[-half:]}"


def listed(values: Iterable[Any], near: Any) -> str:  # noqa: ANN401 - as users write it
    """Return values as a list in words; of many, only the ten strings most like `near`, or the first ten."""
    values = list(values)
    if len(values) <= _MAX_SHOWN:
        return ", ".join(repr(value) for value in values)
    shown = values[:_MAX_SHOWN]
    if isinstance(near, str) and isinstance(values[0], str):
        shown = difflib.get_close_matches(near, [v for v in values if v is not None], _MAX_SHOWN, cutoff=0)
    return f"{', '.join(repr(value) for value in shown)} and {len(values) - len(shown):,} more"


class NotYetError(RequestError):
    """A requested event has not happened yet."""

    def __init__(self, what: str, newest: int) -> None:
        self.newest = newest
        super().__init__(
            f"{what} has not happened yet: {f'the newest is {newest}' if newest >= 0 else 'none has'}"
        )


class StreamError(LogistreamError, RuntimeError):
    """The stream cannot do what was requested in its present state."""


class PortInUseError(LogistreamError, OSError):
    """The port is taken by another program."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        super().__init__(
            f"port {port} on {host} is already in use: stop the program that uses it, "
            f"or choose another port (port=0 takes a free one)"
        )


class MissingPackageError(LogistreamError, ImportError):
    """An optional package is needed and not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{what} needs {package}: pip install 'logistream[{extra}]'")


class MissingJavaError(LogistreamError, RuntimeError):
    """Spark needs Java, and there is none, or one that is too old."""
