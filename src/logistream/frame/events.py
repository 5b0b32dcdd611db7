"""`events`: a range of a stream's past as a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from logistream.client.ranges import find_place, read_range
from logistream.client.subscription import Subscription
from logistream.errors import RequestError
from logistream.frame.convert import schema_of, to_pandas
from logistream.frame.window import Window

if TYPE_CHECKING:
    import pandas as pd

    from logistream.client.subscription import Columns, Source, Start, Where

__all__ = ["events"]


_PART = 100_000  # events of one request; a server limits the length of a range


def events(
    source: Source,
    start: Start = "earliest",
    stop: Start | None = None,
    *,
    columns: Columns | None = None,
    where: Where | None = None,
    numbered: bool = False,
    token: str | None = None,
) -> pd.DataFrame:
    """Read a range of events that have happened.

    Parameters
    ----------
    source : str or StreamServer
        `ws://host:port/ws`, the server's `http://host:port`, or a server of this process.
    start : int, str or datetime, default="earliest"
        The first event: its number, `"earliest"`, or a time, for the first event after it: RFC 3339, a
        datetime (without a zone it is UTC), or a time before now such as `"-10min"`.
    stop : int, str or datetime, optional
        The event after the last one, in the same forms; a time includes the events at that very time. By
        default the range ends with the newest event.
    columns, where, numbered, token
        As in `connect`.

    Returns
    -------
    DataFrame of shape (n_events, n_columns)
        In order, with the columns and dtypes of `RollingFrame.df`.

    Raises
    ------
    RequestError
        The server refuses, or the range has not happened yet.
    StreamError
        The server cannot be reached, or the connection broke.

    Examples
    --------
    >>> late = events(server, "-10min")["Late_delivery_risk"].mean()  # doctest: +SKIP
    """
    first, last = (
        Subscription.of(source, start=value, columns=columns, where=where, numbered=numbered, token=token)
        for value in (start, "latest" if stop is None else stop)
    )
    low, high = _number(first), _number(last)
    if low > high:
        raise RequestError(f"start must not be after stop: {low} is after {high}")
    numbers = range(low, max(high, low + 1), _PART)
    rows = pa.concat_tables(read_range(first, number, min(high, number + _PART)) for number in numbers)
    schema = schema_of(rows.schema)
    window = Window(schema, None, None)
    for batch in rows.cast(schema.arrow).to_batches():
        window.append(batch)
    return to_pandas(window.cut())


def _number(subscription: Subscription) -> int:
    """Return the number of the first event that is asked for."""
    place = subscription.start or "latest"
    return int(place) if place.isdigit() else find_place(subscription, place).number
