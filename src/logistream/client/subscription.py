"""What a client requests from a stream: which events and columns, where to start, how long to wait.

`ReadOptions` documents the options once for `connect`, `RollingFrame.follow` and `logistream tail`. A
`Subscription` checks them and writes the query of the event socket. The server checks names and values.
"""

from __future__ import annotations

import contextlib
import csv
import inspect
import io
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypedDict, TypeVar, get_args

from logistream.errors import RequestError
from logistream.model.conditions import Where, write_conditions
from logistream.stream.query import PARAMETERS, Lag
from logistream.times import parse_duration
from logistream.urls import query_of, websocket_url, with_query

if TYPE_CHECKING:
    from logistream.stream.query import Format

__all__ = [
    "Columns",
    "ReadOptions",
    "Served",
    "Source",
    "Start",
    "Subscription",
    "Where",
    "with_read_options",
]


class Served(Protocol):
    """Anything that knows its event socket, such as a `StreamServer`."""

    @property
    def websocket_url(self) -> str:
        """Address of the event socket."""


Source: TypeAlias = "str | Served"
"""An address, or a server."""

Start: TypeAlias = "int | str | datetime"
"""An event number, `earliest`, `latest`, or a time (RFC 3339, a datetime, or as in `-10min`)."""

Columns: TypeAlias = "str | Iterable[str]"
"""`all`, or names; in one string they are separated by commas."""

T = TypeVar("T", bound=Callable[..., Any])

_MARK = "**options : ReadOptions"


class ReadOptions(TypedDict, total=False):
    """Options of every reader of a stream, all of them keywords.

    start : int, str or datetime, optional
        The first event: its number, `"earliest"`, `"latest"` (the next one that happens; the default), or a
        time, for the first event after it: RFC 3339, a datetime (without a zone it is UTC), or a time before
        now such as `"-10min"`; or the place of a delivery, such as `"40.1"`.
    columns : str or iterable of str, optional
        `"all"`, or the columns wanted, in order. By default those of the published event.
    where : mapping, string, tuple, or iterable of strings and tuples, optional
        Only events that fulfil all conditions, as `Model.sample` takes them: `{"Market": "Europe"}`,
        `{"Sales": slice(100, 500)}`, `("Sales", ">=", 100)`, `"Sales>=100"`. The numbering is unchanged.
    numbered : bool, default=False
        Whether to add the number of each event as the last column, `event_number`.
    lag : {"wait", "skip"}, optional
        What comes next if this reader falls behind: what happened meanwhile (the default), or the newest
        event; `missed` counts what was left out.
    token : str, optional
        Required by servers on other machines.
    first_delay, max_delay : float, default=0.25 and 10.0
        Seconds before the first new attempt to connect, and at most. The delay grows with each attempt, is
        shortened at random by up to 30 %, and is reset by a received message.
    silence : float, default=10.0
        Seconds after which a server that does not even answer pings is disconnected, to connect again.
    """

    start: Start | None
    columns: Columns | None
    where: Where | None
    numbered: bool
    lag: Lag | None
    token: str | None
    first_delay: float
    max_delay: float
    silence: float


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one reader requests, checked; `ReadOptions` documents the options.

    Attributes
    ----------
    url : str
        Address of the event socket, as the user gave it.
    start : str or None
        Value of the parameter for the first connection.
    columns : str or None
        Value of the parameter.
    where : tuple of str
        Conditions, each as the query holds it.
    faults : bool
        Whether the faults of the wire act on what is read; instruments show what happened.
    placed : bool
        Whether the place of each delivery is to stay with it.
    gather : str or None
        Value of the parameter.
    """

    url: str
    start: str | None = None
    columns: str | None = None
    where: tuple[str, ...] = ()
    numbered: bool = False
    lag: str | None = None
    token: str | None = None
    first_delay: float = 0.25
    max_delay: float = 10.0
    silence: float = 10.0
    faults: bool = False
    placed: bool = False
    gather: str | None = None

    @classmethod
    def of(
        cls,
        source: Source,
        *,
        start: Start | None = None,
        columns: Columns | None = None,
        where: Where | None = None,
        numbered: bool = False,
        lag: Lag | None = None,
        token: str | None = None,
        first_delay: float = 0.25,
        max_delay: float = 10.0,
        silence: float = 10.0,
    ) -> Self:
        """Check what a caller gave; `RequestError` for what no server could fulfil.

        A parameter in the query of the address counts where the caller gives none.
        """
        if not 0 < first_delay <= max_delay:
            raise RequestError(
                f"first_delay must be above 0 and not above max_delay (seconds), "
                f"got first_delay={first_delay!r} and max_delay={max_delay!r}"
            )
        if not 0 < silence < float("inf"):
            raise RequestError(f"silence must be a number of seconds above 0, got {silence!r}")
        url = _address(source)
        own = query_of(url)
        single = dict(own)
        return cls(
            url,
            start=single.get("start") if start is None else _start(start),
            columns=single.get("columns") if columns is None else _columns(columns),
            where=write_conditions(where) or tuple(value for name, value in own if name == "where"),
            numbered=numbered or single.get("numbered", "").lower() in ("true", "1"),
            lag=single.get("lag") if lag is None else _lag(lag),
            token=token,
            first_delay=first_delay,
            max_delay=max_delay,
            silence=silence,
            gather=single.get("gather"),
        )

    def of_deliveries(self, *, faults: bool, placed: bool = False) -> Self:
        """Return the same for a reader of what the wire delivers.

        Parameters
        ----------
        faults : bool
            Whether faults act; the query of the address can say that they do not.
        placed : bool
            Whether the places of the deliveries are wanted; the query of the address can say so as well.
        """
        own = dict(query_of(self.url))
        return replace(
            self,
            faults=faults and own.get("faults", "").lower() not in ("false", "0"),
            placed=placed or own.get("placed", "").lower() in ("true", "1"),
        )

    @property
    def filtered(self) -> bool:
        """Whether events are left out on purpose, so that a gap between numbers does not mean a loss."""
        return bool(self.where)

    def address(
        self,
        form: Format,
        start: str | None,
        *,
        numbered: bool,
        placed: bool = False,
        gather: str | None = None,
    ) -> str:
        """Return the address to connect to.

        Parameters
        ----------
        form : Format
            Format of the messages.
        start : str or None
            The first event; None for the next one that happens.
        numbered, placed : bool
            Whether each event should bring its number, or the place of its delivery.
        gather : str or None
            Seconds for which events are gathered before they are sent together.
        """
        query = [(name, value) for name, value in query_of(self.url) if name not in PARAMETERS]
        given = {
            "start": start,
            "format": form,
            "numbered": "true" if numbered else None,
            "placed": "true" if placed else None,
            "faults": None if self.faults else "false",
            "columns": self.columns,
            "lag": self.lag,
            "gather": gather,
        }
        query += [(name, value) for name, value in given.items() if value is not None]
        return with_query(self.url, query + [("where", condition) for condition in self.where])


def with_read_options(reader: T) -> T:
    """Show the options in the signature and the docstring of a function or class that takes `**options`."""
    signature = inspect.signature(reader)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [
        p
        for p in inspect.signature(Subscription.of).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    keywords = [*options, *(p for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY)]
    own = [p for p in own if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    reader.__signature__ = signature.replace(parameters=[*own, *keywords])  # type: ignore[attr-defined]
    _, _, entries = inspect.cleandoc(ReadOptions.__doc__ or "").partition("\n\n")
    reader.__doc__ = inspect.cleandoc(reader.__doc__ or "").replace(_MARK, entries)
    return reader


def _address(source: Source) -> str:
    url = getattr(source, "websocket_url", source)
    if not isinstance(url, str):
        raise RequestError(
            f"cannot read from {source!r}: expected a StreamServer, or an address such as http://127.0.0.1:8000"
        )
    return websocket_url(url)


def _start(start: Start) -> str:
    if isinstance(start, str) and start.strip().startswith("-"):
        with contextlib.suppress(ValueError):
            start = datetime.now(UTC) - timedelta(microseconds=parse_duration(start.strip()[1:]))
    elif isinstance(start, str) and start.strip():
        return start.strip()
    if isinstance(start, datetime) and start == start:  # NaT is not equal to itself
        instant = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
        return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    try:
        number = -1 if isinstance(start, bool) else operator.index(start)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0:
        raise RequestError(
            f"start must be an event number from 0, 'earliest', 'latest', or a time such as "
            f"'2026-11-24T06:23:00Z' or '-10min', not {start!r}"
        )
    return str(number)


def _columns(columns: Columns) -> str:
    if isinstance(columns, str):
        return columns
    names = list(columns)
    if not names or not all(isinstance(name, str) for name in names):
        raise RequestError(f"columns must be 'all' or a list of names, not {columns!r}")
    line = io.StringIO()
    # Quotes keep a lone column named "all" from meaning all of them, and keep blanks at the ends.
    odd = names == ["all"] or any(name != name.strip() for name in names)
    csv.writer(line, lineterminator="", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL).writerow(names)
    return line.getvalue()


def _lag(lag: str) -> str:
    if lag not in get_args(Lag):
        raise RequestError(f"lag must be 'wait' or 'skip', not {lag!r}")
    return lag
