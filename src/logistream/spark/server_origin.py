"""Events of a server, read by number over HTTP as Arrow."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from logistream.client.ranges import find_place, is_not_yet, is_transient, read_range, read_schema
from logistream.client.subscription import Subscription
from logistream.errors import RequestError, StreamError
from logistream.frame.convert import schema_of
from logistream.spark.origin import Offset, Options, Origin, Span, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    import pyarrow as pa

    from logistream.schema import Schema

__all__ = ["OPTIONS", "ServerOrigin"]


logger = logging.getLogger(__name__)

OPTIONS = ("url", "token", "start", "stop", "columns", "where", "maxEventsPerBatch", "numPartitions")
"""Options of the data source `logistream`."""

_PATIENCE = 60.0  # seconds for which a server may be away where nobody could see why nothing happens
_DELAY, _GROWTH, _LONGEST = 0.1, 1.618, 3.0  # seconds before another attempt: the first, then growing
_PART = 65_536  # events of one request: so many are read again if the connection breaks

T = TypeVar("T")


@dataclass(frozen=True)
class ServerOrigin(Origin):
    """The events of a server.

    Attributes
    ----------
    subscription : Subscription
        The server, and which events and columns.
    columns : Schema
        The columns that it sends.
    stop : str or None
        Where a batch query ends, as the query of a range holds it; None after the newest event.
    """

    subscription: Subscription
    columns: Schema
    stop: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Self:
        """Return the origin that options describe, after asking the server for its columns.

        Raises
        ------
        RequestError
            An option is not allowed, or the server refuses it.
        StreamError
            The server has not been reached for a minute.
        """
        given = Options(options, OPTIONS)
        url, columns = given.string("url"), given.string("columns")
        if url is None:
            raise RequestError("option url is needed, as in .option('url', 'http://127.0.0.1:8000')")
        subscription = Subscription.of(
            url,
            start=given.string("start"),
            columns=columns,
            where=given.strings("where"),
            numbered=columns is None,
            token=given.string("token"),
        )
        stop = Subscription.of(url, start=given.string("stop")).start
        return cls(subscription, schema_of(_persist(lambda: read_schema(subscription), _PATIENCE)), stop)

    @property
    def schema(self) -> Schema:
        """The columns."""
        return self.columns

    def begin(self) -> Offset:
        """Return where a new stream query begins: the next event, unless `start` was given."""
        place = _persist(lambda: find_place(self.subscription, self.subscription.start or "latest"), None)
        return {"stream": place.stream_id, "first": place.number, "next": place.number}

    def mark(self) -> int:
        """Return the number of the next event."""
        return _persist(lambda: find_place(self.subscription, "latest"), _PATIENCE).number

    def newest(self, offset: Offset, mark: int | None = None) -> int | None:
        """Return the number of the next event; None while the server is away.

        Raises
        ------
        RequestError
            If the server serves another stream than that of the offset.
        """

        def ask() -> int:
            return find_place(self.subscription, "latest", stream_id=offset["stream"]).number

        if mark is not None:
            _persist(ask, _PATIENCE)
            return mark
        try:
            return ask()
        except (RequestError, StreamError) as error:
            if not is_transient(error):
                raise
            logger.warning("%s; trying again", error)
            return None

    def finished(self) -> tuple[Offset, int]:
        """Return the range of a batch query: all the past, unless `start` or `stop` was given."""
        first, last = (
            _persist(lambda place=place: find_place(self.subscription, place), _PATIENCE)  # type: ignore[misc]
            for place in (self.subscription.start or "earliest", self.stop or "latest")
        )
        if first.number > last.number:
            raise RequestError(f"start must not be after stop: {first.number} is after {last.number}")
        return {"stream": first.stream_id, "first": first.number, "next": first.number}, last.number

    def spans(self, offset: Offset, stop: int, parts: int) -> list[Span]:
        """Return the events from an offset to `stop` (exclusive) as at most `parts` spans."""
        known = {"stream": offset["stream"]}
        return [Span(low, high, known) for low, high in split(offset["next"], stop, parts)]

    def read(self, span: Span, *, patient: bool) -> Iterator[pa.RecordBatch]:
        """Give the events of a span, in the batches of the server."""
        for low in range(span.first, span.stop, _PART):
            high = min(span.stop, low + _PART)
            table = _persist(lambda: self._part(low, high, span), None if patient else _PATIENCE)  # noqa: B023 - called at once
            yield from table.to_batches()

    def _part(self, low: int, high: int, span: Span) -> pa.Table:
        stream_id = span.known["stream"]
        try:
            return read_range(self.subscription, low, high, stream_id=stream_id)
        except RequestError as error:
            if not is_not_yet(error):
                raise
            # Another server of the stream has announced these events: this one is a little behind.
            find_place(self.subscription, "latest", stream_id=stream_id)
            raise StreamError(str(error)) from error


def _persist(work: Callable[[], T], patience: float | None) -> T:
    """Return what `work` returns, after new attempts for so many seconds if it fails; None has no end.

    Spark ends the process if the query is stopped meanwhile.
    """
    since, delay = time.monotonic(), _DELAY
    while True:
        try:
            return work()
        except (RequestError, StreamError) as error:
            if not is_transient(error):
                raise
            if patience is not None and time.monotonic() - since > patience:
                raise StreamError(f"{error} (for {patience:.0f} s)") from error
            logger.warning("%s; trying again", error)
        time.sleep(delay * random.uniform(0.7, 1.0))  # noqa: S311 - no secret
        delay = min(delay * _GROWTH, _LONGEST)
