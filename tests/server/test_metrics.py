"""The metrics agree with what readers really get."""

from __future__ import annotations

import collections
import math
import threading
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from prometheus_client import parser as plain
from prometheus_client.openmetrics import parser as openmetrics
from websockets.exceptions import ConnectionClosedError

import logistream
from helpers.waiting import until
from helpers.websocket import FEW, connect
from logistream.server.metrics import Gauges, metrics_text
from logistream.server.server import StreamServer
from logistream.stream.stream import Stream

if TYPE_CHECKING:
    from prometheus_client import Metric

    from logistream.model.model import Model


def families_of(text: str) -> list[Metric]:
    """Return what a body in Prometheus' text format holds."""
    return list(plain.text_string_to_metric_families(text))


def figures(text: str) -> dict[str, float]:
    """Return the value of each sample without labels."""
    return {
        sample.name: sample.value
        for family in families_of(text)
        for sample in family.samples
        if not sample.labels
    }


def scrape(server: StreamServer) -> dict[str, float]:
    """Return the metrics of a running server."""
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        return figures(answer.read().decode())


def sizes(messages: list[str]) -> int:
    """Return the bytes of messages from a server with their frame headers (RFC 6455, section 5.2)."""
    lengths = [len(message.encode()) for message in messages]
    return sum(length + (2 if length < 126 else 4 if length < 65_536 else 10) for length in lengths)


def test_names_types_and_units(model: Model) -> None:
    """Every metric has a meaning and a type, and its unit as a suffix; both text formats can be parsed."""
    stream, gauges = Stream(model, seed=7), Gauges()
    gauges.set("rate_measured", math.nan)
    body, content_type = metrics_text(stream, gauges)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    text = body.decode()
    assert (
        text.count("# HELP ")
        == text.count("# TYPE ")
        == len(list(plain.text_string_to_metric_families(text)))
    )
    assert math.isnan(figures(text)["logistream_rate_measured"])

    strict, content_type = metrics_text(
        stream, gauges, "application/openmetrics-text;version=1.0.0,*/*;q=0.1"
    )
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    read = openmetrics.text_string_to_metric_families(strict.decode())  # type: ignore[no-untyped-call]
    families: dict[str, Metric] = {family.name: family for family in read}
    assert all(name.startswith("logistream") and family.documentation for name, family in families.items())
    assert {name: family.unit for name, family in families.items() if family.unit} == {
        "logistream_sent_bytes": "bytes",
        "logistream_lag_seconds": "seconds",
        "logistream_clock_behind_seconds": "seconds",
        "logistream_newest_event_age_seconds": "seconds",
    }
    assert {name for name, family in families.items() if family.type == "counter"} == {
        f"logistream_{counted}"
        for counted in ("events", "sent_events", "sent_bytes", "connections", "refused_connections")
    }
    (metrics,) = families["logistream"].samples
    assert metrics.name == "logistream_info"
    assert metrics.labels == {
        "model": model.name,
        "seed": "7",
        "stream": stream.id,
        "version": logistream.__version__,
    }


def test_several_processes_are_counted_together(model: Model) -> None:
    """What they do is added up; of lags and rates the worst counts, and who has no readers has none."""
    memory = bytearray(Gauges.size(3))
    first, second, _ = processes = [Gauges(memory, row) for row in range(3)]
    seen = ((2, 5, 9.5), (3, 70, 7.5), (0, 0, math.nan))
    for gauges, (readers, lag, rate) in zip(processes, seen, strict=True):
        gauges.set("clients", readers)
        gauges.set("lag_events", lag)
        gauges.set("rate_measured", rate)
    first.add("events_sent", 10)
    second.add("events_sent", 20)
    for gauges in processes:
        metrics = figures(metrics_text(Stream(model), gauges)[0].decode())
        assert metrics["logistream_clients"] == 5
        assert metrics["logistream_sent_events_total"] == 30
        assert metrics["logistream_lag_events"] == 70
        assert metrics["logistream_rate_measured"] == 7.5


def test_what_a_reader_got_is_what_is_reported(model: Model) -> None:
    """To the event and the byte, for a stream that stands still."""
    with StreamServer(model, rate=200, port=0, history="5s") as server:
        server.paused = True
        happened = server.state["next_event_number"]
        with connect(f"{server.websocket_url}?start=earliest") as reader:
            messages = [str(reader.recv(timeout=60)) for _ in range(happened)]
            until(lambda: scrape(server)["logistream_sent_events_total"] == happened)
            until(lambda: scrape(server)["logistream_lag_events"] == 0)
            seen = scrape(server)
            assert seen["logistream_clients"] == 1
        assert seen["logistream_events_total"] == happened
        assert seen["logistream_sent_events_total"] == happened
        assert seen["logistream_sent_bytes_total"] == sizes(messages)
        assert seen["logistream_connections_total"] == 1
        assert seen["logistream_refused_connections_total"] == 0
        assert seen["logistream_paused"] == 1
        assert seen["logistream_rate_requested"] == seen["logistream_rate_measured"] == 0
        assert seen["logistream_lag_events"] == seen["logistream_lag_seconds"] == 0
        until(lambda: scrape(server)["logistream_clients"] == 0)

        with pytest.raises(Exception, match="422"), connect(f"{server.websocket_url}?format=xml"):
            pass
        assert scrape(server)["logistream_refused_connections_total"] == 1


def test_the_measured_rate_is_the_requested_one(model: Model) -> None:
    """It is unknown before there is a reader, then that of the reader, and measured anew after a change."""
    with StreamServer(model, rate=500, port=0) as server:
        assert math.isnan(scrape(server)["logistream_rate_measured"])
        with connect(server.websocket_url, close_timeout=0.1) as reader:

            def measured() -> float:
                for _ in range(50):
                    reader.recv(timeout=60)
                return scrape(server)["logistream_rate_measured"]

            until(lambda: measured() == pytest.approx(500, rel=0.2))
            server.rate = 2000
            until(lambda: measured() == pytest.approx(2000, rel=0.2))
            assert scrape(server)["logistream_rate_requested"] == 2000
        until(lambda: math.isnan(scrape(server)["logistream_rate_measured"]))


@pytest.mark.slow
def test_a_reader_that_takes_nothing_shows(model: Model) -> None:
    """The measured rate falls below the requested one, and the lag grows past a second."""
    with (
        StreamServer(model, rate=20_000, port=0) as server,
        connect(server.websocket_url, close_timeout=0.1, max_queue=FEW) as reader,
    ):
        reader.recv(timeout=60)  # and never again: what is on the way fills up

        def falls_behind() -> bool:
            seen = scrape(server)
            return (
                seen["logistream_rate_measured"] < 0.5 * seen["logistream_rate_requested"]
                and seen["logistream_lag_seconds"] > 1
                and seen["logistream_lag_events"] > 10_000
            )

        until(falls_behind)


def test_a_server_that_cannot_keep_up_shows(model: Model) -> None:
    """A million events a second are more than a reader in Python can be given: what it gets is reported."""
    with (
        StreamServer(model, rate=1_000_000, port=0) as server,
        connect(server.websocket_url, close_timeout=0.1, max_queue=FEW) as reader,
    ):

        def read() -> None:
            with suppress(ConnectionClosedError):  # a reader that is behind may not get the close frame
                collections.deque(reader, maxlen=0)

        reading = threading.Thread(target=read)
        reading.start()
        until(lambda: 0 < scrape(server)["logistream_rate_measured"] < 900_000)
        server.stop()
        reading.join()
