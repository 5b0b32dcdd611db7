"""`verify`: compare a sink with the stream that it was filled from.

The rows go by once. Each is compared with its event; of each event number it is counted how often it came, so
that what is missing in the end is known. Rows whose events are far apart are put aside until all are read.
"""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

from logistream.errors import NotYetError, RequestError
from logistream.times import parse_duration
from logistream.verification.check import Check
from logistream.verification.counting import Spill
from logistream.verification.reference import open_reference
from logistream.verification.sink import StoredRows
from logistream.verification.windows import Grouping

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from datetime import timedelta

    from logistream.client.subscription import Source
    from logistream.model.model import Model
    from logistream.stream.stream import Stream
    from logistream.verification.result import Verification
    from logistream.verification.sink import Sinkable

__all__ = ["verify"]


def verify(
    what: Sinkable,
    source: Source | str | os.PathLike[str] | Stream,
    *,
    model: Model | str | os.PathLike[str] | None = None,
    start: int | None = None,
    stop: int | None = None,
    ordered: bool = True,
    faults: bool = True,
    arrived: str | None = None,
    late: str | timedelta | None = None,
    window: str | timedelta | None = None,
    watermark: str | timedelta | None = None,
    by: str | Iterable[str] = (),
    sums: str | Iterable[str] = (),
    token: str | None = None,
) -> Verification:
    """Report what a sink lost, doubled, reordered or altered, and whether the wire or the pipeline did it.

    The wire did what the faults of the stream describe: an event is lost by the wire if it was dropped, never
    delivered whole, or not delivered before `stop`; a row is altered by the wire if it holds what a corrupted
    delivery of its event held. All else is the pipeline's.

    Values are compared, not types: a sink may hold strings, numbers and timestamps as JSON, pandas or Spark
    have written them. Memory does not grow with the values, but by about a byte for each event of a sink that
    is not in order; such rows go through temporary files.

    Parameters
    ----------
    what : DataFrame, path, or iterable
        The sink: a DataFrame, Arrow columns, Parquet or NDJSON files (a path, or a list of paths), a folder
        of them, or an iterator of dicts, JSON strings, DataFrames or record batches. It has a column
        `event_number`, and any other columns of the stream. Further columns are ignored.
    source : str, path or StreamServer
        The address of the server, a `StreamServer`, or the timeline file of the server.
    model : Model or path, optional
        What the events of a timeline file are drawn from; the shipped model if it is not given. A server
        knows its model; where this is another one, the events are read from the server.
    start, stop : int, optional
        The range of event numbers, `stop` excluded; rows of other events are left out. By default it is that
        of the sink, so that what the sink lacks at its ends is not noticed.
    ordered : bool, default=True
        Whether the rows of each file should be in the order of delivery. Of several files each has its own.
    faults : bool, default=True
        Whether the sink was filled with what the wire delivered; False if the reader asked for the stream
        without its faults, as `RollingFrame` and the sources of Spark do.
    arrived : str, optional
        The column with the time at which each row arrived.
    late : str or timedelta, default="30s"
        How long after its event a row may arrive; needs `arrived`.
    window : str or timedelta, optional
        Also give the right sums of tumbling windows of this length in event time, from 1970 on.
    watermark : str or timedelta, optional
        How far the watermark of the pipeline is behind the newest event time that was delivered. An event
        counts only if it is delivered before the watermark reaches the end of its window.
    by : str or iterable of str, optional
        Columns by which the windows are divided.
    sums : str or iterable of str, optional
        Columns of numbers to sum up. The events are always counted.
    token : str, optional
        Required by servers on other machines.

    Returns
    -------
    Verification
        A table in a notebook. `ok` says whether the pipeline did nothing wrong, `windows` holds the sums.

    Raises
    ------
    DataError
        The sink cannot be read, has no rows or no event numbers, or is of another stream.
    RequestError
        A value is not allowed, or the model is not that of the timeline.
    StreamError
        The server cannot be reached, or the timeline cannot be read.

    Examples
    --------
    >>> print(verify("orders.parquet", "http://127.0.0.1:8000"))  # doctest: +SKIP
    """
    if late is not None and arrived is None:
        raise RequestError("late needs arrived, the column with the time at which each row arrived")
    bound = _micros("late", "30s" if late is None else late)
    reference = open_reference(source, model, token)
    grouping = Grouping.of(reference.schema, window, watermark, by, sums)
    first = reference.timeline.entries[0].first
    start, stop = _event_number("start", start, first), _event_number("stop", stop, first)
    if stop is not None and stop > reference.newest:
        raise NotYetError(f"event {stop - 1}", reference.newest - 1)
    if start is not None and start >= (reference.newest if stop is None else stop):
        raise RequestError(f"start must be before stop, or before the newest event, not {start}")
    sink = StoredRows(what, reference.schema, () if arrived is None else (arrived,))
    with Spill() as waiting, Spill() as attributed:
        check = Check(
            reference,
            waiting,
            attributed,
            start,
            stop,
            bound,
            arrived=arrived,
            ordered=ordered,
            faults=faults,
        )
        for place, rows in sink.pieces():
            check.add(place, rows)
        return check.finish(sink, grouping)


def _event_number(name: str, number: object, first: int) -> int | None:
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, Integral) or int(number) < first:
        raise RequestError(f"{name} must be an event number from {first}, not {number!r}")
    return int(number)


def _micros(name: str, length: str | timedelta) -> int:
    try:
        micros = parse_duration(length)
    except ValueError as error:
        raise RequestError(f"{name}: {error}") from None
    if micros < 0:
        raise RequestError(f"{name} must not be negative, got {length}")
    return micros
