"""What a server counts, in memory that its processes can share, and the metrics for Prometheus.

Names follow https://prometheus.io/docs/practices/naming: the unit is the suffix, and a count ends in `total`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

import logistream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from logistream.stream.stream import Stream

__all__ = ["Gauge", "Gauges", "metrics_text"]


Gauge: TypeAlias = Literal[
    "clients", "events_sent", "bytes_sent", "connected", "refused", "lag_events", "rate_measured"
]
"""Readers now; events and bytes handed to readers, readers accepted and refused, all since the start;
how many events the slowest reader is behind; events per second that readers get, NaN if not known."""

_NAMES: tuple[str, ...] = get_args(Gauge)


class Gauges:
    """The counts of one process, and their sums over all processes that share the memory.

    Parameters
    ----------
    memory : writable buffer or None
        Of `Gauges.size(rows)` bytes; None for a process of its own.
    row : int
        Which of the rows this process writes.
    """

    def __init__(self, memory: Any = None, row: int = 0) -> None:  # noqa: ANN401 - any buffer
        buffer = bytearray(self.size(1)) if memory is None else memory
        self._all = np.frombuffer(buffer, np.float64).reshape(-1, len(_NAMES))
        self._own = self._all[row]
        self._own[:] = 0

    @staticmethod
    def size(rows: int) -> int:
        """Return how many bytes so many rows take."""
        return rows * len(_NAMES) * 8

    def set(self, name: Gauge, value: float) -> None:
        """Write a value of this process."""
        self._own[_NAMES.index(name)] = value

    def add(self, name: Gauge, amount: float = 1) -> None:
        """Count in this process."""
        self._own[_NAMES.index(name)] += amount

    def total(self, name: Gauge) -> int:
        """Return a value of all processes: the sum, or the largest for a lag."""
        column = self._all[:, _NAMES.index(name)]
        return int(column.max() if name == "lag_events" else column.sum())

    def least(self, name: Gauge) -> float:
        """Return the smallest value of a process; NaN if none has any."""
        return float(np.fmin.reduce(self._all[:, _NAMES.index(name)]))


_OPENMETRICS = "application/openmetrics-text"


def metrics_text(stream: Stream, gauges: Gauges, accept: str = "") -> tuple[bytes, str]:
    """Write the metrics of a server for Prometheus.

    Parameters
    ----------
    stream : Stream
        The stream that is served.
    gauges : Gauges
        What all processes together have counted.
    accept : str
        The `Accept` header of the request: OpenMetrics if it names that, else Prometheus' own text format.

    Returns
    -------
    bytes
        The body.
    str
        Its content type.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StreamCollector(stream, gauges))
    if _OPENMETRICS in accept.lower():
        body: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return body, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _StreamCollector(Collector):
    """Reads stream and gauges for each request."""

    def __init__(self, stream: Stream, gauges: Gauges) -> None:
        self._stream, self._gauges = stream, gauges

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its name and meaning."""
        stream, gauges = self._stream, self._gauges
        happened = stream.next_number()
        yield InfoMetricFamily(
            "logistream",
            "Which stream this is.",
            {
                "model": stream.model.name,
                "seed": str(stream.seed),
                "stream": stream.id,
                "version": logistream.__version__,
            },
        )
        yield CounterMetricFamily(
            "logistream_events", "Events that have happened in the stream since its event 0.", happened
        )
        newest = happened - 1
        yield GaugeMetricFamily(
            "logistream_newest_event_age_seconds",
            "How long ago the newest event happened. NaN before the first.",
            stream.age(newest) / 1e6 if newest >= stream.timeline.entries[0].first else math.nan,
            unit="seconds",
        )
        yield CounterMetricFamily(
            "logistream_sent_events",
            "Events that were handed to readers, once for each reader.",
            gauges.total("events_sent"),
        )
        yield CounterMetricFamily(
            "logistream_sent_bytes",
            "What readers were sent, with the frames of the WebSocket.",
            gauges.total("bytes_sent"),
            unit="bytes",
        )
        yield GaugeMetricFamily(
            "logistream_clients", "Readers of the WebSocket and of /sse now.", gauges.total("clients")
        )
        yield CounterMetricFamily(
            "logistream_connections", "Readers that were accepted.", gauges.total("connected")
        )
        yield CounterMetricFamily(
            "logistream_refused_connections",
            "WebSocket handshakes that were refused, and readers of /sse beyond the limit.",
            gauges.total("refused"),
        )
        yield from self._lag(happened)
        yield from self._rates()
        yield GaugeMetricFamily(
            "logistream_clock_behind_seconds",
            "How far the clock of this server is behind the time that the stream has reached, because it was "
            "set back, or behind the clock of another server that shares the timeline.",
            stream.clock_behind,
            unit="seconds",
        )

    def _lag(self, happened: int) -> Iterator[Metric]:
        """Yield how far the slowest reader is behind."""
        lag = self._gauges.total("lag_events")
        yield GaugeMetricFamily(
            "logistream_lag_events", "How many events the slowest reader has not been handed yet.", lag
        )
        oldest = max(happened - lag, self._stream.timeline.entries[0].first)
        yield GaugeMetricFamily(
            "logistream_lag_seconds",
            "How long ago the next event of the slowest reader happened.",
            self._stream.age(oldest) / 1e6 if lag else 0,
            unit="seconds",
        )

    def _rates(self) -> Iterator[Metric]:
        """Yield the rate that was requested, and the rate that readers get."""
        paused = self._stream.paused
        yield GaugeMetricFamily(
            "logistream_rate_requested",
            "Events per second that were requested, 0 during a pause.",
            0 if paused else self._stream.rate,
        )
        yield GaugeMetricFamily(
            "logistream_rate_measured",
            "Events per second handed to the live reader that is served best, over the last 10 seconds, "
            "or 10 events if they took longer, since the rate last changed; of the processes the slowest. "
            "NaN without a live reader, or before there are enough events to measure.",
            0 if paused else self._gauges.least("rate_measured"),
        )
        yield GaugeMetricFamily("logistream_paused", "1 if the stream is paused, 0 if it runs.", int(paused))
