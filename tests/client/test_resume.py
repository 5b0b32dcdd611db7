"""A client that continues where it stopped, whatever the server does."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.numbered import START, NumberedServer, event, process, text, until_closed
from helpers.sockets import Proxy, free_port
from helpers.waiting import until
from logistream.client.client import Messages, connect
from logistream.errors import RequestError

FAST: dict[str, Any] = {"first_delay": 0.005, "max_delay": 0.02}
"""Delays in seconds, scaled down."""


async def take(url: str, count: int, **options: Any) -> list[dict[str, Any]]:
    """Return the first events that a client gets."""
    async with (
        asyncio.timeout(60),
        connect(url, **{"on_trouble": lambda _: None, **FAST, **options}) as events,
    ):
        return [await anext(events) for _ in range(count)]


def numbers(events: list[dict[str, Any]]) -> list[int]:
    """Return which events they are."""
    assert events == [event(made["n"]) for made in events]
    return [made["n"] for made in events]


@settings(max_examples=20, deadline=None)
@given(
    most=st.lists(st.integers(0, 4), max_size=8),
    back=st.integers(0, 25),
    per_message=st.integers(1, 20),
)
def test_every_event_comes_once_and_in_order(most: list[int], back: int, per_message: int) -> None:
    """A server that breaks off after any number of messages and repeats itself costs no event."""
    with NumberedServer(60, most=most, back=back, per_message=per_message) as server:
        assert numbers(asyncio.run(take(server.url, 60, start="earliest"))) == list(range(60))


def test_break_before_the_first_event_loses_nothing() -> None:
    """The number given at the first connection is requested at the second."""

    async def run(server: NumberedServer) -> list[dict[str, Any]]:
        async with connect(server.url, **FAST, on_trouble=lambda _: None) as events:
            waiting = asyncio.create_task(anext(events))
            while not events.connected:
                await asyncio.sleep(0.001)
            assert (events.next_number, events.stream_id) == (5, server.stream_id)
            server.cut()
            server.happen(3)
            return [await waiting, await anext(events), await anext(events)]

    with NumberedServer(5) as server:
        assert numbers(asyncio.run(run(server))) == [5, 6, 7]
        assert "start" not in server.queries[0]
        assert server.queries[1]["start"] == ["5"]


def test_counters() -> None:
    """The attributes show what happened."""

    async def run(url: str) -> None:
        async with connect(url, start=0, **FAST, on_trouble=lambda _: None) as events:
            assert events.silent_for == 0
            for _ in range(30):
                await anext(events)
            assert (events.received, events.reconnects, events.restarts, events.missed) == (30, 2, 0, 0)
            assert (events.next_number, events.stream_id) == (30, "00000000000000aa")
            assert events.trouble is None
            assert 0 <= events.silent_for < 30

    with NumberedServer(30, most=[1, 1]) as server:
        asyncio.run(run(server.url))


@pytest.mark.parametrize(
    ("start", "first"),
    [
        (7, 7),
        ("earliest", 0),
        ("latest", 20),
        (None, 20),
        (START.replace(microsecond=4000), 5),
        ("2026-11-24T00:00:00.010Z", 11),
    ],
)
def test_start(start: Any, first: int) -> None:
    """Reading starts at a number, at either end, or after a time."""
    with NumberedServer(20) as server, ThreadPoolExecutor() as other:
        taken = other.submit(lambda: asyncio.run(take(server.url, 2, start=start)))
        until(lambda: server.reading)
        server.happen(2)
        assert numbers(taken.result()) == [first, first + 1]


def test_start_in_the_address() -> None:
    """The query of the address counts, and is not sent again after a break."""
    with NumberedServer(40, most=[1]) as server:
        assert numbers(asyncio.run(take(server.url + "?start=3", 20))) == list(range(3, 23))
        assert [query["start"] for query in server.queries] == [["3"], ["12.1"]]


def test_columns_and_numbers() -> None:
    """Other columns in their order; the number only if requested, as the last key."""
    with NumberedServer(20) as server:
        [made] = asyncio.run(take(server.url, 1, start=4, columns=["more", "n"], numbered=True))
        assert list(made.items()) == [("more", 2.0), ("n", 4), ("event_number", 4)]
        [made] = asyncio.run(take(server.url, 1, start=4, columns="all"))
        assert list(made) == ["n", "text", "event_time", "more"]


def test_condition_goes_on_after_a_break() -> None:
    """Numbers of a selection have gaps, which do not mean a loss."""

    async def run(server: NumberedServer) -> None:
        async with connect(
            server.url, start=0, where={"text": ["t1", "t3"]}, **FAST, on_trouble=lambda _: None
        ) as events:
            got = [(await anext(events))["n"] for _ in range(20)]
            assert got == [n for n in range(100) if n % 7 in (1, 3)][:20]
            assert (events.missed, events.reconnects) == (0, 3)

    with NumberedServer(100, most=[2, 2, 2], back=6) as server:
        asyncio.run(run(server))


@pytest.mark.parametrize("where", [None, {"text": "t1"}])
def test_what_a_server_leaves_out_is_counted(where: Any) -> None:
    """A reader that may be skipped ahead learns how many events it missed."""

    async def run(server: NumberedServer) -> None:
        async with connect(server.url, start=0, lag="skip", where=where) as events:
            wanted = [n for n in [*range(10), *range(25, 60)] if where is None or n % 7 == 1]
            assert [(await anext(events))["n"] for _ in wanted] == wanted
            assert events.missed == 15
            assert server.queries[0]["lag"] == ["skip"]

    with NumberedServer(60, skip={10: 15}) as server:
        asyncio.run(run(server))


def test_replica_that_is_a_little_behind_is_asked_again() -> None:
    """An event that was promised by one replica and has not happened at another is waited for."""

    async def run(proxy: Proxy, behind: NumberedServer) -> None:
        troubles: list[str] = []

        def note(trouble: str) -> None:
            troubles.append(trouble)
            if len(behind.queries) > 1 and behind.count < 30:
                behind.happen(30 - behind.count)

        async with asyncio.timeout(60), connect(proxy.url, start=0, **FAST, on_trouble=note) as events:
            got = [await anext(events) for _ in range(20)]
            proxy.switch(behind.port)
            got += [await anext(events) for _ in range(10)]
            assert numbers(got) == list(range(30))
            assert (events.restarts, events.missed) == (0, 0)
        refusal = "refuses: event 20 has not happened yet: the newest is 4"
        assert any(refusal in trouble for trouble in troubles)

    with NumberedServer(20) as ahead, NumberedServer(5) as behind, Proxy(ahead.port) as proxy:
        asyncio.run(run(proxy, behind))


@pytest.mark.parametrize("denies", [True, False])
def test_event_that_has_not_happened_is_refused_at_first(denies: bool) -> None:
    """A start in the far future is refused, also by a server that can only accept and close."""
    with NumberedServer(5, denies=denies) as server, pytest.raises(RequestError) as caught:
        asyncio.run(take(server.url, 1, start=1000))
    assert str(caught.value) == f"{server.url} refuses: event 1000 has not happened yet: the newest is 4"


@pytest.mark.parametrize("begun", [3, 50], ids=["number not there", "number there"])
def test_server_that_has_lost_its_timeline_is_read_from_the_beginning(begun: int) -> None:
    """Numbers of another stream mean other events: the client starts again, counts and reports it."""

    async def run(old: NumberedServer) -> None:
        troubles: list[str] = []
        async with (
            asyncio.timeout(60),
            connect(old.url, start="earliest", numbered=True, **FAST, on_trouble=troubles.append) as events,
        ):
            got = [(await anext(events))["event_number"] for _ in range(20)]
            old.__exit__()
            with NumberedServer(begun, port=old.port, stream_id="00000000000000bb") as new:
                got += [(await anext(events))["event_number"] for _ in range(3)]
                assert got == [*range(20), 0, 1, 2]
                assert (events.restarts, events.stream_id) == (1, new.stream_id)
                assert [query.get("start") for query in new.queries] == [["19.1"], ["earliest"]]
        assert f"{old.url} serves another stream than before: starting again with earliest" in troubles

    old = NumberedServer(20, port=free_port())
    old.__enter__()
    asyncio.run(run(old))


def test_strings_are_those_that_come_without_places() -> None:
    """`Messages` removes the place from the string, and nothing else; or leaves it, if requested."""

    async def run(url: str, **options: Any) -> list[str]:
        async with Messages(url, start=0, **options) as messages:
            return [await anext(messages) for _ in range(12)]

    with NumberedServer(20) as server:
        assert asyncio.run(run(server.url)) == [text(n) for n in range(12)]
        assert asyncio.run(run(server.url, numbered=True)) == [
            text(n, {"event_number": n}) for n in range(12)
        ]
        assert asyncio.run(run(server.url, placed=True)) == [
            text(n).replace("{", f'{{"delivery":"{n}.0",', 1) for n in range(12)
        ]


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ('{"n":0}\n', "an event without 'delivery' came: {\"n\":0}"),
        ("hello", "an event without 'delivery' came: hello"),
        (b"\xff\xfe", "an event without 'delivery' came: \ufffd\ufffd"),
        ('{"delivery":"7.0",[1]}\n', "an event must be a JSON object, got {[1]}"),
    ],
)
def test_server_that_sends_something_else_is_explained(sent: str, sentence: str) -> None:
    """What is not an event with its number is named, with the address."""

    def handle(connection: Any) -> None:
        connection.send(sent)
        until_closed(connection)

    with NumberedServer(5, handle=handle) as server, pytest.raises(RequestError) as caught:
        asyncio.run(take(server.url, 1, faults=False))
    assert str(caught.value) == f"{server.url} does not send events: {sentence}"


@pytest.mark.slow
def test_server_that_comes_back_on_another_port_behind_a_proxy() -> None:
    """Killed and started again elsewhere, three times: the client behind a proxy gets each event once."""
    count = 600
    got: list[dict[str, Any]] = []

    async def run(events: connect) -> None:
        async with asyncio.timeout(100), events:
            async for made in events:
                got.append(made)
                if len(got) == count:
                    return

    with ExitStack() as stack:
        server, port = stack.enter_context(process(count // 2, pause=0.005))
        proxy = stack.enter_context(Proxy(port))
        events = connect(proxy.url, start=0, **FAST, on_trouble=lambda _: None)
        reader = threading.Thread(target=asyncio.run, args=[run(events)])
        reader.start()
        for share in (1, 2, 3):
            until(lambda: len(got) >= share * count // 4)  # noqa: B023 - called at once
            until(lambda: events.connected and events.reconnects >= share - 1)  # noqa: B023
            server.kill()
            happened = min(share + 2, 4) * count // 4 - (share < 3)  # only the last one has all
            server, port = stack.enter_context(process(happened, pause=0.005))
            proxy.switch(port)
        reader.join()
    assert events.reconnects >= 3
    assert numbers(got) == list(range(count))
    assert json.loads(text(3)) == event(3)
