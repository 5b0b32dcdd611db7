"""Reading a stream, and what happens when the connection breaks or the server refuses."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

import logistream.client.listener as listener_module
from helpers.numbered import NumberedServer, event, text, until_closed
from helpers.sockets import answering, free_port
from helpers.waiting import until
from logistream.client.client import connect
from logistream.client.subscription import ReadOptions
from logistream.dataco import EVENT
from logistream.errors import RequestError
from logistream.frame.frame import RollingFrame
from logistream.urls import websocket_url

if TYPE_CHECKING:
    from logistream.server.server import StreamServer

FAST: dict[str, Any] = {"first_delay": 0.01, "max_delay": 0.05}
"""Delays in seconds, scaled down."""


def line(number: int) -> str:
    """Return the message of one event."""
    return text(number).replace("{", f'{{"delivery":"{number}.0",', 1) + "\n"


async def take(url: Any, count: int, **options: Any) -> list[dict[str, Any]]:
    """Return the first events of a stream."""
    async with connect(url, **{"on_trouble": lambda _: None, **FAST, **options}) as events:
        return [await anext(events) for _ in range(count)]


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("ws://127.0.0.1:8000/ws", "ws://127.0.0.1:8000/ws"),
        ("ws://127.0.0.1:8000", "ws://127.0.0.1:8000/ws"),
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/ws"),
        ("http://127.0.0.1:8000/", "ws://127.0.0.1:8000/ws"),
        ("https://example.org/logistics/ws?start=earliest", "wss://example.org/logistics/ws?start=earliest"),
        ("wss://example.org", "wss://example.org/ws"),
        ("localhost:8000", "ws://localhost:8000/ws"),
        ("http://[::1]:8000/?token=abc", "ws://[::1]:8000/ws?token=abc"),
    ],
)
def test_address(typed: str, url: str) -> None:
    """What people type as an address finds the socket."""
    assert websocket_url(typed) == url
    assert connect(typed).url == url


@pytest.mark.parametrize(
    "typed", ["", "ftp://example.org", "ws://", "ws://host:99999", "ws://:8000", "ws://[::1/ws"]
)
def test_impossible_address_is_refused_at_once(typed: str) -> None:
    """An address that cannot work is refused before anything is dialled, with examples of what can."""
    with pytest.raises(RequestError) as caught:
        connect(typed)
    assert str(caught.value) == (
        f"cannot connect to {typed!r}: expected an address such as ws://127.0.0.1:8000/ws or http://127.0.0.1:8000"
    )


@pytest.mark.parametrize("delays", [{"first_delay": 0.0}, {"first_delay": 2.0, "max_delay": 1.0}])
def test_impossible_delays_are_refused(delays: dict[str, Any]) -> None:
    """A delay of nothing would hammer the server."""
    with pytest.raises(RequestError, match="first_delay must be above 0 and not above max_delay"):
        connect("ws://127.0.0.1:1/ws", **delays)


def test_async_for_inside_async_with_can_be_left_and_taken_up() -> None:
    """Leaving the loop keeps the connection while the block lasts; leaving the block closes it."""

    async def run(url: str) -> None:
        async with connect(url, start=0) as events:
            async for first in events:
                assert first == event(0)
                break
            async for second in events:
                assert second == event(1)
                break
            assert (events.connected, events.received, events.reconnects) == (True, 2, 0)
        assert not events.connected
        assert [more async for more in events] == []

    with NumberedServer(2) as server:
        asyncio.run(run(server.url))


def test_async_for_without_a_block_closes_when_left() -> None:
    """`async for event in connect(url)` alone is enough; leaving the loop hangs up."""

    async def run() -> None:
        loop, left = asyncio.get_running_loop(), asyncio.Event()

        def handle(connection: Any) -> None:
            connection.send(line(0))
            until_closed(connection)
            loop.call_soon_threadsafe(left.set)

        with NumberedServer(0, handle=handle) as server:
            async for first in connect(server.url):
                assert first == event(0)
                break
            await asyncio.wait_for(left.wait(), 60)

    asyncio.run(run())


def test_plain_for_needs_no_asyncio() -> None:
    """`for event in connect(url)` gives each event once, also across a break, and hangs up when left."""
    with NumberedServer(60, most=[2]) as server:
        events = connect(server.url, start=0, on_trouble=lambda _: None, **FAST)
        assert list(itertools.islice(events, 55)) == [event(n) for n in range(55)]
        assert (events.received, events.reconnects) == (55, 1)
        until(lambda: not events.connected)
    until(lambda: not [thread for thread in threading.enumerate() if "reader" in thread.name])


def test_plain_for_works_while_a_loop_runs() -> None:
    """In a notebook cell the thread has a running loop already."""

    async def run(url: str) -> list[dict[str, Any]]:
        return list(itertools.islice(connect(url, start=0), 3))

    with NumberedServer(5) as server:
        assert asyncio.run(run(server.url)) == [event(n) for n in range(3)]


def test_plain_for_raises_what_the_server_refuses() -> None:
    """A refusal ends the loop with the server's sentence, and leaves no thread."""
    with NumberedServer(5) as server, pytest.raises(RequestError, match="event 9 has not happened yet"):
        list(connect(server.url, start=9))
    until(lambda: not [thread for thread in threading.enumerate() if "reader" in thread.name])


def test_close_ends_a_waiting_iteration() -> None:
    """Closing from another task ends `async for` instead of reconnecting, even between two attempts."""

    async def run(url: str) -> None:
        events = connect(url, first_delay=600, max_delay=600, on_trouble=lambda _: troubled.set())
        troubled = asyncio.Event()
        waiting = asyncio.create_task(anext(aiter(events), "ended"))
        await troubled.wait()
        await events.close()
        assert await asyncio.wait_for(waiting, 60) == "ended"

    asyncio.run(run(f"ws://127.0.0.1:{free_port()}/ws"))


def test_cancelling_loses_nothing() -> None:
    """A read that is cancelled before a message came does not swallow the next one."""

    async def run() -> None:
        with NumberedServer(1) as server:
            async with connect(server.url, start=0) as events:
                assert await anext(events) == event(0)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(events), 0.01)
                server.happen(1)
                assert await anext(events) == event(1)

    asyncio.run(run())


def test_reconnects_when_the_server_dies_and_returns() -> None:
    """A server that dies and comes back on its port is found again; each failed attempt is reported once."""

    async def run() -> None:
        troubles: list[str] = []
        with NumberedServer(1, port=free_port()) as server:
            events = connect(server.url, start=0, on_trouble=troubles.append, **FAST)
            assert await anext(events) == event(0)
        waiting = asyncio.create_task(anext(events))
        while len(troubles) < 3:
            await asyncio.sleep(0.001)
        assert not events.connected
        assert events.trouble == troubles[-1]
        with NumberedServer(2, port=server.port):
            assert await asyncio.wait_for(waiting, 60) == event(1)
            assert repr(events) == f"<connect {server.url}: connected, 2 received>"
            assert events.reconnects == 1
            await events.close()
        assert "closed the connection (1006)" in troubles[0]
        assert "cannot be reached: nothing listens there; trying again in " in troubles[1]

    asyncio.run(run())


@pytest.mark.slow
def test_server_that_accepts_and_closes_is_not_hammered() -> None:
    """Only a received message resets the delay: accept-and-close is dialled less and less often."""
    waits: list[float] = []

    async def run(url: str) -> None:
        enough = asyncio.Event()

        def note(trouble: str) -> None:
            waits.append(float(trouble.split()[-2]))
            if len(waits) == 7:
                enough.set()

        async with connect(url, first_delay=0.1, max_delay=0.8, on_trouble=note) as events:
            waiting = asyncio.create_task(anext(events))
            await asyncio.wait_for(enough.wait(), 60)
            waiting.cancel()

    with NumberedServer(0, handle=lambda _: None) as server:
        asyncio.run(run(server.url))
        assert len(server.queries) == 7
    for number, wait in enumerate(waits):
        full = min(0.1 * 1.618**number, 0.8)
        assert 0.7 * full - 0.051 <= wait <= full + 0.051  # the sentence shows tenths


def test_message_resets_the_delay() -> None:
    """A server that sends one message per connection is dialled again after the first delay each time."""
    with NumberedServer(20, per_message=1, most=[1] * 20) as server:
        options = {"start": 0, "first_delay": 0.01, "max_delay": 1000}
        events = asyncio.run(asyncio.wait_for(take(server.url, 20, **options), 60))
    assert events == [event(n) for n in range(20)]


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((401, '{"detail": "a token is required"}'), "a token is required"),
        ((403, '{"detail": "page http://evil.example is refused"}'), "page http://evil.example is refused"),
        ((403, "no"), "HTTP 403 Forbidden"),
        ((404, '{"detail": ["odd"]}'), "HTTP 404 Not Found"),
    ],
)
def test_refused_handshake_is_final(refusal: tuple[int, str], words: str) -> None:
    """An HTTP refusal is raised at once in the server's own words."""
    with NumberedServer(0, refuse=refusal) as server:
        with pytest.raises(RequestError) as caught:
            asyncio.run(take(server.url, 1))
        assert str(caught.value) == f"{server.url} refuses: {words}"
        assert len(server.queries) == 1


def test_close_with_1008_is_final() -> None:
    """A close with code 1008 is raised with its reason; what came before it is delivered."""

    def handle(connection: Any) -> None:
        connection.send(line(0))
        connection.close(1008, "unknown parameter 'wher'")

    async def run(url: str) -> None:
        async with connect(url) as events:
            assert await anext(events) == event(0)
            with pytest.raises(RequestError) as caught:
                await anext(events)
            assert str(caught.value) == f"{url} refuses: unknown parameter 'wher'"

    with NumberedServer(0, handle=handle) as server:
        asyncio.run(run(server.url))
        assert len(server.queries) == 1


def silent(connection: Any) -> None:
    """Send nothing."""
    until_closed(connection)


def talking(connection: Any) -> None:
    """Send something."""
    connection.send("hello")
    until_closed(connection)


@pytest.mark.parametrize("handle", [silent, talking])
def test_another_websocket_server_is_refused(handle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is not ours is named at once, whether it sends something or not."""
    if handle is silent:
        monkeypatch.setattr(listener_module, "_REASON_TIMEOUT", 0.05)
    with NumberedServer(0, foreign=True, handle=handle) as server:
        with pytest.raises(RequestError) as caught:
            asyncio.run(take(server.url, 1))
        assert len(server.queries) == 1
    assert str(caught.value) == (
        f"{server.url} is not a Logistream server: its answer lacks the header Logistream-Stream; "
        f"check host and port"
    )


@pytest.mark.parametrize("status", [429, 503])
def test_busy_server_is_tried_again(status: int) -> None:
    """A server that is overloaded or starting is tried again."""

    async def run() -> None:
        with NumberedServer(1, refuse=(status, "busy")) as server:

            def calm(trouble: str) -> None:
                assert f"refuses: HTTP {status}" in trouble
                server.refuse = None

            assert await take(server.url, 1, start=0, on_trouble=calm) == [event(0)]
            assert len(server.queries) == 2

    asyncio.run(run())


def test_something_else_on_the_port_is_final() -> None:
    """A program that does not speak HTTP is not tried again."""
    with answering(b"SSH-2.0-OpenSSH_9.9\r\n") as url, pytest.raises(RequestError) as caught:
        asyncio.run(take(url, 1))
    assert str(caught.value) == f"{url} does not answer as a WebSocket server does"


def test_hanging_up_without_an_answer_is_tried_again() -> None:
    """A port that hangs up may be a server that is just starting."""
    attempts: list[str] = []

    async def run(url: str) -> None:
        async with connect(url, on_trouble=attempts.append, **FAST) as events:
            waiting = asyncio.create_task(anext(events))
            while len(attempts) < 3:
                await asyncio.sleep(0.001)
            waiting.cancel()

    with answering(b"") as url:
        asyncio.run(run(url))
    assert len(attempts) == 3


def test_outage_is_logged_once_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Without `on_trouble` the first failed attempt is logged as a warning, the others are not."""

    async def run() -> None:
        events = connect(f"ws://127.0.0.1:{free_port()}/ws", **FAST)
        waiting = asyncio.create_task(anext(events, None))
        while len(caplog.records) < 4:
            await asyncio.sleep(0.001)
        await events.close()
        await waiting

    with caplog.at_level(logging.INFO, "logistream"):
        asyncio.run(run())
    assert [record.levelname for record in caplog.records[:4]] == ["WARNING", "INFO", "INFO", "INFO"]


def test_token_is_sent_as_a_header() -> None:
    """A token goes into the header, where it is not logged with the address."""
    with NumberedServer(1) as server:
        asyncio.run(take(server.url, 1, start=0, token="secret"))
        assert server.authorizations == ["Bearer secret"]


def test_repr_shows_the_state() -> None:
    """The repr of a connection names the address and what was received, no token."""
    assert repr(connect("localhost:8000", token="secret")) == (
        "<connect ws://localhost:8000/ws: not connected, 0 received>"
    )


def test_stream_server_sends_the_published_event(server: StreamServer) -> None:
    """The real server's events are dicts with the 23 keys in order; the server itself serves as address."""
    for source in (server.url, server):
        events = asyncio.run(take(source, 20))
        assert all(tuple(made) == EVENT.names for made in events)


def test_something_that_has_no_address_is_refused() -> None:
    """The sentence says what can be read from."""
    with pytest.raises(RequestError, match=r"^cannot read from 8000: expected a StreamServer, or an address"):
        connect(8000)  # type: ignore[arg-type]


@pytest.mark.parametrize("reader", [connect, RollingFrame.follow])
def test_options_are_shown_where_they_are_given(reader: Any) -> None:
    """Signature and docstring name every option with its default, as `?` in a notebook shows them."""
    parameters = inspect.signature(reader).parameters
    assert set(parameters) >= {"source", *ReadOptions.__annotations__}
    assert (parameters["start"].default, parameters["silence"].default) == (None, 10.0)
    shown = inspect.getdoc(reader) or ""
    assert all(
        re.search(rf"^(\w+, )?{name}\b.* : ", shown, re.MULTILINE) for name in ReadOptions.__annotations__
    )


def test_stream_server_refuses_in_its_own_words(server: StreamServer) -> None:
    """What the real server does not know is raised with its sentence, and not tried again."""
    with pytest.raises(RequestError, match="wher"):
        asyncio.run(take(server.websocket_url + "?wher=Market:Europe", 1))
