"""The right sums of windows: what a pipeline should get that counts each event once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from logistream.errors import RequestError, listed
from logistream.times import parse_duration
from logistream.verification.reference import plain_deliveries

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from logistream.schema import Schema
    from logistream.verification.reference import Reference

__all__ = ["Grouping", "window_sums"]


_ROWS = 65_536  # events that are summed up at once
_MOST = 200_000  # sums of parts before they are put together

_WINDOW, _EVENTS, _TOO_LATE, _CORRUPTED = "window", "events", "too_late", "corrupted"


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which sums are wanted, checked.

    Attributes
    ----------
    width : int
        Of a window, in microseconds.
    watermark : int or None
        How far the watermark is behind the newest event time, in microseconds; None for no watermark.
    by : tuple of str
        Columns that divide the windows.
    sums : tuple of str
        Columns of numbers.
    """

    width: int
    watermark: int | None
    by: tuple[str, ...]
    sums: tuple[str, ...]

    @classmethod
    def of(
        cls,
        schema: Schema,
        window: str | timedelta | None,
        watermark: str | timedelta | None,
        by: str | Iterable[str],
        sums: str | Iterable[str],
    ) -> Self | None:
        """Check what a caller gave; None if no windows are wanted, `RequestError` for what is not allowed."""
        by, sums = ((given,) if isinstance(given, str) else tuple(given) for given in (by, sums))
        if window is None:
            for name, given in (("watermark", watermark), ("by", by), ("sums", sums)):
                if given:
                    raise RequestError(f"{name} needs window, the length of the windows, such as '1min'")
            return None
        lengths = []
        for name, length in (("window", window), ("watermark", watermark)):
            try:
                lengths.append(None if length is None else parse_duration(length))
            except ValueError as error:
                raise RequestError(f"{name}: {error}") from None
        width, behind = lengths
        if not width or width < 0 or (behind is not None and behind < 0):
            raise RequestError(
                f"window must be longer than 0 and watermark not negative, got {window} and {watermark}"
            )
        for name in (*by, *sums):
            if name not in schema:
                raise RequestError(
                    f"no column {name!r} to sum up or to divide by: there are {listed(schema.names, name)}"
                )
        for name in sums:
            if schema[name].kind not in ("integer", "number", "boolean"):
                raise RequestError(f"column {name!r} cannot be summed up: it holds no numbers")
        if len(set(by)) < len(by) or len(set(sums)) < len(sums) or set(by) & set(sums):
            raise RequestError("by and sums must name different columns, each once")
        return cls(width, behind, by, sums)


def window_sums(
    reference: Reference, grouping: Grouping, start: int, stop: int, *, faults: bool
) -> pd.DataFrame:
    """Return the right sums of each window and group, of what slots `start` to `stop` (exclusive) deliver.

    Returns
    -------
    DataFrame
        Sorted by `window` (its begin, UTC) and the columns of `grouping.by`, with `events` (how many count:
        each that was delivered, once), the sums under the names of their columns, `too_late` (events that
        were delivered too late for the watermark, and do not count) and `corrupted` (events that count, with
        the values that they had, though they were delivered corrupted). Sums of columns with a fixed number
        of decimals are exact.
    """
    schema = reference.schema
    names = [*grouping.by, *grouping.sums]
    parts: list[pa.Table] = []
    newest = -1
    for low in range(start, stop, _ROWS):
        high = min(low + _ROWS, stop)
        if faults:
            rows, deliveries = reference.delivered(low, high, names)
        else:
            rows, deliveries = reference.rows(low, high, names), plain_deliveries(low, high)
        reached = np.maximum.accumulate(np.concatenate([[newest], deliveries.numbers]))[1:]
        newest = int(reached[-1]) if len(reached) else newest
        first = np.flatnonzero(deliveries.copies == 0)
        numbers = deliveries.numbers[first]
        begin = int(numbers.min(initial=low))
        times = reference.timeline.times(begin, int(reached.max(initial=low)) + 1)
        windows = times[numbers - begin] // grouping.width * grouping.width
        too_late = np.zeros(len(first), bool)
        if grouping.watermark is not None:
            too_late = windows + grouping.width <= times[reached[first] - begin] - grouping.watermark
        corrupted = np.isin(first, list(deliveries.corruptions)) & ~too_late
        rows = rows.take(pa.array(first)) if len(first) < rows.num_rows else rows
        columns: dict[str, pa.Array] = {_WINDOW: pa.array(windows)}
        for name in grouping.by:
            column = rows.column(name)
            columns[name] = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        columns[_EVENTS] = pa.array((~too_late).astype(np.int64))
        columns[_TOO_LATE] = pa.array(too_late.astype(np.int64))
        columns[_CORRUPTED] = pa.array(corrupted.astype(np.int64))
        counting = pa.array(~too_late)
        for name in grouping.sums:
            values = _summable(rows.column(name), schema[name].decimals)
            columns[f"sum {name}"] = pc.if_else(counting, values, pa.scalar(0, values.type))
        parts.append(_summed(pa.table(columns), grouping))
        if sum(part.num_rows for part in parts) > _MOST:
            parts = [_summed(pa.concat_tables(parts), grouping)]
    return _frame(_summed(pa.concat_tables(parts), grouping), grouping, schema)


def _summable(values: pa.Array, decimals: int | None) -> pa.Array:
    """Return numbers whose sums are exact: whole ones, where the number of decimals is fixed."""
    if pa.types.is_boolean(values.type):
        return values.cast(pa.int64())
    if decimals is None or not pa.types.is_floating(values.type):
        return values
    return pa.array(np.round(values.to_numpy(zero_copy_only=False) * 10.0**decimals), from_pandas=True).cast(
        pa.int64()
    )


def _summed(table: pa.Table, grouping: Grouping) -> pa.Table:
    keys = [_WINDOW, *grouping.by]
    sums = [name for name in table.schema.names if name not in keys]
    summed = table.group_by(keys, use_threads=False).aggregate([(name, "sum") for name in sums])
    return summed.select([*keys, *(f"{name}_sum" for name in sums)]).rename_columns([*keys, *sums])


def _frame(table: pa.Table, grouping: Grouping, schema: Schema) -> pd.DataFrame:
    table = table.sort_by([(name, "ascending") for name in (_WINDOW, *grouping.by)])
    frame = pd.DataFrame({_WINDOW: pd.to_datetime(table.column(_WINDOW).to_numpy(), unit="us", utc=True)})
    for name in grouping.by:
        frame[name] = table.column(name).to_pandas()
    frame[_EVENTS] = table.column(_EVENTS).to_numpy()
    for name in grouping.sums:
        values = table.column(f"sum {name}").to_numpy()
        decimals = schema[name].decimals
        exact = decimals is not None and schema[name].kind == "number"
        frame[name] = values / 10.0 ** (decimals or 0) if exact else values
    for name in (_TOO_LATE, _CORRUPTED):
        frame[name] = table.column(name).to_numpy()
    return frame
