"""Logs on stderr as JSON, one object a line: the access log, and on request everything else.

JSON in ASCII holds no character with which a message could end a line or control a terminal.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, TextIO

from logistream.times import rfc3339

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ACCESS_LOGGER", "json_line", "log_access_to_stderr", "log_as_json"]


ACCESS_LOGGER = "logistream.access"
"""Name of the logger whose messages are lines of JSON already."""


def json_line(micros: int, **found: object) -> str:
    """Return an object on one line; `micros` is when, in microseconds since the Unix epoch."""
    return json.dumps({"time": rfc3339(micros), **found})


class _StderrHandler(logging.StreamHandler[Any]):
    """A type of our own, to recognise it among the handlers of others."""


class _JsonFormatter(logging.Formatter):
    """Writes a record as an object with `time`, `level`, `logger`, `message`, and `traceback` of an error."""

    def format(self, record: logging.LogRecord) -> str:
        found = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json_line(int(record.created * 1e6), **found)


def log_access_to_stderr() -> None:
    """Write the access log to stderr and nowhere else; calling it again changes nothing."""
    logger = logging.getLogger(ACCESS_LOGGER)
    _set_handler(logger, logging.Formatter("%(message)s"))
    logger.setLevel(logging.INFO)
    logger.propagate = False


def log_as_json() -> None:
    """Write everything that this process logs to stderr as JSON; for processes that are ours alone.

    Python's warnings and errors that nobody catches become records too.
    """
    _set_handler(logging.getLogger(), _JsonFormatter())
    warnings.showwarning = _log_warning
    sys.excepthook = _log_error
    threading.excepthook = lambda args: _log_error(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    )


def _set_handler(logger: logging.Logger, formatter: logging.Formatter) -> None:
    for handler in list(logger.handlers):
        if isinstance(handler, _StderrHandler):
            logger.removeHandler(handler)
    handler = _StderrHandler(sys.stderr)
    handler.setFormatter(formatter)
    logger.addHandler(handler)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log a warning; the parameters are those of `warnings.showwarning`."""
    del file, line
    logging.getLogger("py.warnings").warning("%s: %s (%s:%d)", category.__name__, message, filename, lineno)


def _log_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log an error that ends a thread or the process."""
    if not issubclass(kind, SystemExit | KeyboardInterrupt):
        logging.getLogger("logistream").critical("unexpected error: %s", error, exc_info=(kind, error, trace))
