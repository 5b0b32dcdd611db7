"""Read ranges of a stream's past over HTTP: the number at a place, and the events between two numbers."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

import pyarrow as pa

from logistream.client.listener import NOT_YET, TRANSIENT_STATUS, explain, not_ours, refusal
from logistream.errors import RequestError, StreamError
from logistream.stream.query import EVENT_NUMBER_HEADER, PARAMETERS, STREAM_HEADER
from logistream.urls import http_url, is_local, query_of, with_query

if TYPE_CHECKING:
    from logistream.client.subscription import Subscription

__all__ = [
    "Place",
    "find_place",
    "is_not_yet",
    "is_transient",
    "opener_for",
    "read_json",
    "read_range",
    "read_schema",
]


_TIMEOUT = 30.0  # seconds without any byte


class Place(NamedTuple):
    """A place in a stream.

    Attributes
    ----------
    stream_id : str
        Identity of the stream.
    number : int
        The event that follows.
    """

    stream_id: str
    number: int


def find_place(subscription: Subscription, start: str, *, stream_id: str | None = None) -> Place:
    """Return the place that `start`, as the query holds it, means; the rest is as for `read_range`."""
    number, point, _ = start.partition(".")
    stop = str(int(number) + 1) if point and number.isdigit() else start  # the empty range there, or one slot
    with _answer(subscription, start, stop) as answer:
        return _place(subscription, answer, stream_id)


def read_schema(subscription: Subscription) -> pa.Schema:
    """Return the columns that a subscription selects; errors as for `read_range`."""
    with _answer(subscription, "earliest", "earliest") as answer:
        return _read(subscription, answer).schema


def read_range(
    subscription: Subscription, start: int, stop: int, *, stream_id: str | None = None
) -> pa.Table:
    """Return events `start` to `stop` (exclusive), which have happened.

    Parameters
    ----------
    subscription : Subscription
        The server, and which events and columns.
    start, stop : int
        Event numbers.
    stream_id : str, optional
        The stream that must answer.

    Raises
    ------
    RequestError
        The server refuses, does not have these events yet, or serves another stream.
    StreamError
        The server cannot be reached, fails, or the connection broke.
    """
    with _answer(subscription, str(start), str(stop)) as answer:
        if stream_id is not None:
            _place(subscription, answer, stream_id)
        return _read(subscription, answer)


def read_json(subscription: Subscription, name: str, **query: str) -> Any:  # noqa: ANN401 - JSON
    """Return what a call such as `timeline` answers; errors as for `read_range`."""
    own = [(key, value) for key, value in query_of(subscription.url) if key not in PARAMETERS]
    address = with_query(http_url(subscription.url, name), [*own, *query.items()])
    with _open(subscription, address) as answer:
        try:
            return json.load(answer)
        except (OSError, HTTPException) as error:
            raise StreamError(f"{subscription.url} broke off while it answered: {error}") from error
        except ValueError:
            raise not_ours(subscription.url) from None


def opener_for(url: str) -> OpenerDirector:
    """Return what opens addresses of a server; it ignores proxies if the server is on this machine."""
    # A proxy would look for loopback on its own machine.
    return build_opener(*([ProxyHandler({})] if is_local(url) else []))


def is_transient(error: Exception) -> bool:
    """Return whether what went wrong may pass, so that the same request is worth another try."""
    return isinstance(error, StreamError) or _status(error) in TRANSIENT_STATUS


def is_not_yet(error: Exception) -> bool:
    """Return whether a server refused because it does not have these events yet."""
    return _status(error) == NOT_YET


def _status(error: Exception) -> int | None:
    return error.__cause__.code if isinstance(error.__cause__, HTTPError) else None


def _place(subscription: Subscription, answer: Any, stream_id: str | None) -> Place:  # noqa: ANN401 - as urllib has it
    found, number = answer.headers.get(STREAM_HEADER), answer.headers.get(EVENT_NUMBER_HEADER, "")
    if found is None or not number.isdigit():
        raise not_ours(subscription.url)
    if stream_id not in (None, found):
        raise RequestError(
            f"{subscription.url} serves another stream than before ({found}, not {stream_id}): start it with "
            f"the timeline file, model and seed of that stream, or begin to read anew"
        )
    return Place(found, int(number))


def _read(subscription: Subscription, answer: Any) -> pa.Table:  # noqa: ANN401 - as urllib has it
    try:
        return pa.ipc.open_stream(answer).read_all()
    except (OSError, HTTPException, pa.ArrowException) as error:
        raise StreamError(f"{subscription.url} broke off while it sent events: {error}") from error


def _answer(subscription: Subscription, start: str, stop: str) -> Any:  # noqa: ANN401 - as urllib has it
    """Ask for a range as an Arrow stream; return the answer as `_open` does."""
    url = subscription.address("arrow", start, numbered=subscription.numbered)
    return _open(subscription, with_query(http_url(url, "events"), [*query_of(url), ("stop", stop)]))


def _open(subscription: Subscription, address: str) -> Any:  # noqa: ANN401 - as urllib has it
    """Return the answer to a request, a context manager, before it is read."""
    request = Request(address, headers=_headers(subscription))  # noqa: S310 - http or https
    try:
        return opener_for(subscription.url).open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        with error:
            sentence = f"{subscription.url} refuses: {refusal(error.code, error.reason, error.read())}"
        raise (RequestError if error.code < 500 else StreamError)(sentence) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise StreamError(f"{subscription.url} does not answer within {_TIMEOUT:.0f} s") from error
        raise StreamError(
            f"{subscription.url} {explain(reason if isinstance(reason, Exception) else error)}"
        ) from error


def _headers(subscription: Subscription) -> dict[str, str]:
    return {"Authorization": f"Bearer {subscription.token}"} if subscription.token else {}
