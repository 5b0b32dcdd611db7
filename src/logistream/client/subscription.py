"""What a client asks of a stream: which events, which columns, from where on.

A `Subscription` turns what a caller gives into the query of the event socket. The server judges the values;
what can be told to be impossible without one is refused at once.
"""

from __future__ import annotations

import csv
import io
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from logistream.errors import RequestError
from logistream.stream.query import PARAMETERS
from logistream.urls import query_of, websocket_url, with_query

if TYPE_CHECKING:
    from logistream.stream.query import Format, Lag

__all__ = ["Columns", "Start", "Subscription", "Where"]


Start: TypeAlias = "int | str | datetime"
"""An event number, `earliest`, `latest`, or a moment (RFC 3339, or a datetime; without a zone it is UTC)."""

Columns: TypeAlias = "str | Iterable[str]"
"""`all`, or names; as one text, with commas between them."""

Where: TypeAlias = "Mapping[str, Any] | str | Iterable[str]"
"""For each column concerned a value or a list of values (None: missing), or texts `COLUMN:VALUE`."""

_MISSING = ("nan", "NaT", "<NA>")  # as NumPy and pandas write what is missing


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one reader asks for.

    Parameters
    ----------
    url : str
        Address of the event socket, as the user gave it.
    start : str or None
        Where to begin the first time; None for the next event that happens.
    numbered : bool
        Whether the caller wants the numbers of the events.
    columns : str or None
        Value of the parameter; None for the published event.
    where : tuple of str
        Conditions, each `COLUMN:VALUE`.
    lag : str or None
        Value of the parameter.
    asked : tuple of str
        The parameters that the caller gave besides the address, by name: only a server that knows them will
        do.
    """

    url: str
    start: str | None = None
    numbered: bool = False
    columns: str | None = None
    where: tuple[str, ...] = ()
    lag: str | None = None
    asked: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        url: str,
        *,
        start: Start | None = None,
        numbered: bool = False,
        columns: Columns | None = None,
        where: Where | None = None,
        lag: Lag | None = None,
    ) -> Self:
        """Make one of what a caller gave; `RequestError` for what no server could fulfil.

        Parameters that stand in the query of the address count where the caller gives none.
        """
        typed = websocket_url(url)
        own = query_of(typed)
        single = dict(own)
        conditions = _conditions(where)
        asked = {
            "start": start,
            "numbered": numbered or None,
            "columns": columns,
            "where": conditions or None,
        }
        return cls(
            typed,
            start=single.get("start") if start is None else _start(start),
            numbered=numbered or single.get("numbered", "").lower() in ("true", "1"),
            columns=single.get("columns") if columns is None else _columns(columns),
            where=conditions or tuple(value for name, value in own if name == "where"),
            lag=single.get("lag") if lag is None else _lag(lag),
            asked=tuple(name for name, value in {**asked, "lag": lag}.items() if value is not None),
        )

    @property
    def filtered(self) -> bool:
        """Whether events are left out on purpose, so that a gap between numbers says nothing."""
        return bool(self.where)

    @property
    def rewrites(self) -> bool:
        """Whether the address that the user gave has parameters which `address` puts its own in place of."""
        return any(name in PARAMETERS for name, _ in query_of(self.url))

    def address(self, form: Format, start: str | None, *, numbered: bool) -> str:
        """Return the address to dial.

        Parameters
        ----------
        form : Format
            How the events should come.
        start : str or None
            From where on; None for the next event that happens.
        numbered : bool
            Whether each event should bring its number.
        """
        query = [(name, value) for name, value in query_of(self.url) if name not in PARAMETERS]
        given = {
            "start": start,
            "format": form,
            "numbered": "true" if numbered else None,
            "columns": self.columns,
            "lag": self.lag,
        }
        query += [(name, value) for name, value in given.items() if value is not None]
        return with_query(self.url, query + [("where", condition) for condition in self.where])


def _start(start: Start) -> str:
    if isinstance(start, str) and start.strip():
        return start.strip()
    if isinstance(start, datetime):
        moment = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    try:
        number = -1 if isinstance(start, bool) else operator.index(start)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0:
        raise RequestError(
            f"start must be an event number from 0, 'earliest', 'latest', or a time such as "
            f"'2026-11-24T06:23:00Z', not {start!r}"
        )
    return str(number)


def _columns(columns: Columns) -> str:
    if isinstance(columns, str):
        return columns
    names = list(columns)
    if not names or not all(isinstance(name, str) for name in names):
        raise RequestError(f"columns must be 'all' or a list of names, not {columns!r}")
    line = io.StringIO()
    # A lone column that is called all must not be taken for all of them, nor blanks be lost at the ends.
    odd = names == ["all"] or any(name != name.strip() for name in names)
    csv.writer(line, lineterminator="", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL).writerow(names)
    return line.getvalue()


def _conditions(where: Where | None) -> tuple[str, ...]:
    if where is None:
        return ()
    if isinstance(where, str):
        return (where,)
    if isinstance(where, Mapping):
        return tuple(
            f"{name}:{_value(name, value)}"
            for name, values in where.items()
            for value in (values if _is_several(values) else [values])
        )
    texts = tuple(where) if isinstance(where, Iterable) else (None,)
    if not all(isinstance(text, str) for text in texts):
        raise RequestError(f"where must be like {{'Market': 'Europe'}} or ['Market:Europe'], not {where!r}")
    return texts


def _is_several(values: object) -> bool:
    return isinstance(values, Iterable) and not isinstance(values, str | bytes)


def _value(name: str, value: Any) -> str:  # noqa: ANN401 - as users write it
    """Return a value as the query writes it: nothing for a missing one."""
    value = value.item() if hasattr(value, "item") else value  # a NumPy scalar
    if value is None or (not isinstance(value, str) and str(value) in _MISSING):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return _start(value)
    if value == "":
        raise RequestError(
            f"a condition on {name!r} cannot ask for the empty text: None asks for a missing value"
        )
    return str(value)


def _lag(lag: str) -> str:
    if lag not in ("wait", "skip"):
        raise RequestError(f"lag must be 'wait' or 'skip', not {lag!r}")
    return lag
