"""Sinks of a stream, as pipelines write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from logistream.schema import EVENT_NUMBER, Schema
from logistream.stream.corruption import corrupt_strings
from logistream.stream.encoding import ROWS_AT_ONCE, Encoder

if TYPE_CHECKING:
    import pandas as pd

    from logistream.stream.stream import Stream

__all__ = ["delivered_lines", "numbered_batch", "numbered_frame"]


def numbered_batch(stream: Stream, start: int, stop: int) -> pa.RecordBatch:
    """Return events with their numbers, as a clean reader gets them in Arrow."""
    numbers = pa.array(np.arange(start, stop))
    return stream.batch(start, stop).append_column(EVENT_NUMBER.name, numbers)


def numbered_frame(stream: Stream, start: int, stop: int) -> pd.DataFrame:
    """Return the same as a DataFrame, strings as strings."""
    frame: pd.DataFrame = numbered_batch(stream, start, stop).to_pandas()
    for name in frame.columns:
        if frame[name].dtype == "category":
            frame[name] = frame[name].astype("str")
    return frame


def delivered_lines(stream: Stream, start: int, stop: int) -> list[bytes]:
    """Return what a reader gets in these slots: lines of JSON with event numbers, faults and all."""
    batch, deliveries = stream.deliveries(start, stop)
    batch = batch.append_column(EVENT_NUMBER.name, pa.array(deliveries.numbers))
    encoder = Encoder(Schema((*stream.model.full_schema, EVENT_NUMBER)), after="\n")
    written = b""
    for low in range(0, len(batch), ROWS_AT_ONCE):
        part = batch.slice(low, ROWS_AT_ONCE)
        here = {row - low: how for row, how in deliveries.corruptions.items() if 0 <= row - low < len(part)}
        written += corrupt_strings(encoder.join(part), encoder, here).data.tobytes()
    return written.splitlines()
