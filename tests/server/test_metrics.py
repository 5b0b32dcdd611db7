"""The metrics agree with what readers really get."""

from __future__ import annotations

import math
import threading
import urllib.request
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser as plain
from prometheus_client.openmetrics import parser as openmetrics
from websockets.sync.client import connect

import logistream
from helpers.waiting import until
from logistream.server.metrics import Gauges, metrics_text
from logistream.server.pump import RateMeter
from logistream.server.server import StreamServer
from logistream.stream.stream import Stream

if TYPE_CHECKING:
    from prometheus_client import Metric

    from logistream.model.model import Model

BEAT = 0.002
"""Seconds between two moments of handing, at least."""


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


def handed_evenly(meter: RateMeter, rate: float, seconds: float, events: int = 30) -> float:
    """Hand events at an even rate for some time, or until there are enough; return the last moment."""
    number, moment = 0, 0.0
    while moment < seconds or number < events:
        moment += max(1 / rate, BEAT)
        stop = math.floor(moment * rate + 1e-6)
        meter.hand(number, stop, moment)
        number = stop
    return moment


@given(st.floats(-3, 6).map(lambda exponent: 10**exponent))
def test_an_even_stream_is_measured_as_it_is(rate: float) -> None:
    """From one in a quarter of an hour to a million a second, whenever one looks between two events."""
    meter = RateMeter()
    last = handed_evenly(meter, rate, seconds=1.0)
    number = math.floor(last * rate + 1e-6)
    for moment in (last, last + 0.5 / rate):
        assert meter.rate(moment, number) == pytest.approx(rate, rel=0.03)
    assert len(meter._points) < 150


def test_what_does_not_come_shows() -> None:
    """After a second without events the rate is lower, and after many it is next to nothing."""
    meter = RateMeter()
    last = handed_evenly(meter, 1000, seconds=20)
    seen = [meter.rate(last + late, 10**9) for late in (0, 1, 2, 5, 10, 20, 100)]
    assert seen == sorted(seen, reverse=True)
    assert seen[1] < 950
    assert seen[4] < 20


def test_a_server_that_sends_half_of_what_happens_holds_half() -> None:
    """The reader is further and further behind, and gets 500 of 1,000 events a second."""
    meter = RateMeter()
    for beat in range(1, 2000):
        meter.hand((beat - 1) * 5, beat * 5, beat * 0.01)
    assert meter.rate(20.0, 20_000) == pytest.approx(500, rel=0.02)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=50), st.randoms(use_true_random=False))
def test_an_event_counts_once_for_all_readers(pieces: list[int], shuffle: object) -> None:
    """Whoever gets it first, and in whatever pieces the others get theirs."""
    one, many = RateMeter(), RateMeter()
    number = 0
    cursors = [0, 0, 0]
    for step, size in enumerate(pieces):
        one.hand(number, number + size, step * 1.0)
        number += size
        first = shuffle.randrange(3)  # type: ignore[attr-defined]
        for reader in (first, *(r for r in range(3) if r != first)):
            stop = number if reader == first else shuffle.randint(cursors[reader], number)  # type: ignore[attr-defined]
            many.hand(cursors[reader], stop, step * 1.0)
            cursors[reader] = stop
    moment = len(pieces) * 1.0
    assert one.rate(moment, number) == pytest.approx(many.rate(moment, number), nan_ok=True)


def test_events_without_a_reader_are_no_failure() -> None:
    """Before the first reader, and after another rate was set, nothing is known; then only what is new."""
    meter = RateMeter()
    assert math.isnan(meter.rate(0.0, 0))
    meter.restart(1000)
    assert math.isnan(meter.rate(5.0, 1000))
    assert meter.rate(5.0, 1001) == 0, "one has happened, and no reader has got it"
    meter.hand(1000, 1001, 5.1)
    assert math.isnan(meter.rate(5.2, 1001)), "one event has no rate"
    meter.hand(1001, 1003, 6.1)
    assert meter.rate(6.1, 1003) == pytest.approx(2)
    meter.restart(1003)
    assert math.isnan(meter.rate(6.2, 1003))


def test_events_that_readers_skip_are_not_held() -> None:
    """Who jumps over a thousand events has been handed one."""
    meter = RateMeter()
    meter.hand(0, 1, 0.0)
    meter.hand(1, 2, 1.0)
    meter.hand(1002, 1003, 2.0)
    assert meter.rate(2.0, 1003) == pytest.approx(1)


def test_names_types_and_units(model: Model) -> None:
    """Every figure has a meaning and a type, and its unit for a suffix; both text formats can be read."""
    stream, gauges = Stream(model, seed=7), Gauges()
    gauges.set("rate_held", math.nan)
    body, content_type = metrics_text(stream, gauges)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    text = body.decode()
    assert (
        text.count("# HELP ")
        == text.count("# TYPE ")
        == len(list(plain.text_string_to_metric_families(text)))
    )
    assert math.isnan(figures(text)["logistream_rate_held"])

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
        gauges.set("rate_held", rate)
    first.add("events_sent", 10)
    second.add("events_sent", 20)
    for gauges in processes:
        metrics = figures(metrics_text(Stream(model), gauges)[0].decode())
        assert metrics["logistream_clients"] == 5
        assert metrics["logistream_sent_events_total"] == 30
        assert metrics["logistream_lag_events"] == 70
        assert metrics["logistream_rate_held"] == 7.5


def test_what_a_reader_got_is_what_is_reported(model: Model) -> None:
    """To the event and the byte, for a stream that stands still."""
    with StreamServer(model, rate=200, port=0, history="5s") as server:
        server.paused = True
        happened = server.state["next_event_number"]
        with connect(f"{server.websocket_url}?start=earliest") as reader:
            messages = [str(reader.recv(timeout=10)) for _ in range(happened)]
            seen = scrape(server)
            assert seen["logistream_clients"] == 1
        assert seen["logistream_events_total"] == happened
        assert seen["logistream_sent_events_total"] == happened
        assert seen["logistream_sent_bytes_total"] == sizes(messages)
        assert seen["logistream_connections_total"] == 1
        assert seen["logistream_refused_connections_total"] == 0
        assert seen["logistream_paused"] == 1
        assert seen["logistream_rate_asked"] == seen["logistream_rate_held"] == 0
        assert seen["logistream_lag_events"] == seen["logistream_lag_seconds"] == 0
        until(lambda: scrape(server)["logistream_clients"] == 0)

        with pytest.raises(Exception, match="422"), connect(f"{server.websocket_url}?format=xml"):
            pass
        assert scrape(server)["logistream_refused_connections_total"] == 1


def test_the_rate_that_is_held_is_the_one_that_was_asked_for(model: Model) -> None:
    """Unknown before anybody reads; then that of the reader, and anew after a change."""
    with StreamServer(model, rate=500, port=0) as server:
        assert math.isnan(scrape(server)["logistream_rate_held"])
        with connect(server.websocket_url, close_timeout=0.1) as reader:

            def held() -> float:
                for _ in range(50):
                    reader.recv(timeout=10)
                return scrape(server)["logistream_rate_held"]

            until(lambda: held() == pytest.approx(500, rel=0.2), within=30)
            server.rate = 2000
            until(lambda: held() == pytest.approx(2000, rel=0.2), within=30)
            assert scrape(server)["logistream_rate_asked"] == 2000
        until(lambda: math.isnan(scrape(server)["logistream_rate_held"]))


def test_a_reader_that_takes_nothing_shows(model: Model) -> None:
    """The rate that is held falls below the one that was asked for, and the lag grows past a second."""
    with (
        StreamServer(model, rate=20_000, port=0) as server,
        connect(server.websocket_url, close_timeout=0.1) as reader,
    ):
        reader.recv(timeout=10)  # and never again: what is on the way fills up

        def falls_behind() -> bool:
            seen = scrape(server)
            return (
                seen["logistream_rate_held"] < 0.5 * seen["logistream_rate_asked"]
                and seen["logistream_lag_seconds"] > 1
                and seen["logistream_lag_events"] > 10_000
            )

        until(falls_behind, within=30)


def test_a_server_that_cannot_keep_up_shows(model: Model) -> None:
    """A million events a second are more than a reader in Python can be given: what it gets is reported."""
    with (
        StreamServer(model, rate=1_000_000, port=0) as server,
        connect(server.websocket_url, close_timeout=0.1) as reader,
    ):
        reading = threading.Thread(target=lambda: all(True for _ in reader))
        reading.start()
        until(lambda: 0 < scrape(server)["logistream_rate_held"] < 900_000, within=30)
        server.stop()
        reading.join()
