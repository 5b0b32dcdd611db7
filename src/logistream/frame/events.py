"""`events`: a range of a stream's past as a DataFrame."""

from __future__ import annotations

from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pyarrow as pa

from logistream.client.listener import explain, not_ours, refusal
from logistream.client.subscription import Subscription
from logistream.errors import RequestError, StreamError
from logistream.frame.convert import schema_of, to_pandas
from logistream.frame.window import Window
from logistream.stream.query import EVENT_NUMBER_HEADER
from logistream.urls import http_url, is_local, query_of, with_query

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
    rows = pa.concat_tables(_rows(first, number, min(high, number + _PART)) for number in numbers)
    schema = schema_of(rows.schema)
    window = Window(schema, None, None)
    for batch in rows.cast(schema.arrow).to_batches():
        window.append(batch)
    return to_pandas(window.cut())


def _number(subscription: Subscription) -> int:
    """Return the number of the first event that is asked for."""
    place = subscription.start or "latest"
    if place.isdigit():
        return int(place)
    with _answer(subscription, place, place) as answer:  # the empty range at that place
        number = answer.headers.get(EVENT_NUMBER_HEADER, "")
    if not number.isdigit():
        raise not_ours(subscription.url)
    return int(number)


def _rows(subscription: Subscription, start: int, stop: int) -> pa.Table:
    """Return events `start` to `stop` (exclusive), which have happened."""
    try:
        with _answer(subscription, str(start), str(stop)) as answer:
            return pa.ipc.open_stream(answer).read_all()
    except (OSError, HTTPException, pa.ArrowException) as error:
        raise StreamError(f"{subscription.url} broke off while it sent events: {error}") from error


def _answer(subscription: Subscription, start: str, stop: str) -> Any:  # noqa: ANN401 - as urllib has it
    """Ask for a range as an Arrow stream; return the answer, a context manager, before it is read."""
    url = subscription.address("arrow", start, numbered=subscription.numbered)
    address = with_query(http_url(url, "events"), [*query_of(url), ("stop", stop)])
    # A proxy would look for loopback on its own machine.
    opener = build_opener(*([ProxyHandler({})] if is_local(url) else []))
    try:
        return opener.open(Request(address, headers=_headers(subscription)))  # noqa: S310 - http or https
    except HTTPError as error:
        with error:
            sentence = f"{subscription.url} refuses: {refusal(error.code, error.reason, error.read())}"
        raise (RequestError if error.code < 500 else StreamError)(sentence) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise StreamError(
            f"{subscription.url} {explain(reason if isinstance(reason, Exception) else error)}"
        ) from error


def _headers(subscription: Subscription) -> dict[str, str]:
    return {"Authorization": f"Bearer {subscription.token}"} if subscription.token else {}
