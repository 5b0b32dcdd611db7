"""Listening to a stream, and what happens when it breaks."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Any

import pytest

from helpers.sockets import EventServer, answering, free_port, sending, until_closed
from logistream.client.client import Messages, connect
from logistream.client.publication import fetch_schema
from logistream.dataco import EVENT
from logistream.errors import RequestError
from logistream.urls import websocket_url

if TYPE_CHECKING:
    from logistream.server.server import StreamServer

FAST: dict[str, Any] = {"first_delay": 0.01, "max_delay": 0.05}
"""Delays in seconds, scaled down."""


async def take(url: str, count: int, **options: Any) -> list[dict[str, Any]]:
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


def test_events_as_dicts() -> None:
    """Events arrive in order as dicts, from text and from binary messages."""
    with EventServer(sending('{"n":0}', b'{"n":1}')) as server:
        assert asyncio.run(take(server.url, 2)) == [{"n": 0}, {"n": 1}]


def test_messages_as_they_came() -> None:
    """`Messages` gives the texts untouched."""

    async def run(url: str) -> str | bytes:
        async with Messages(url) as messages:
            return await anext(messages)

    with EventServer(sending('{ "n": 0 }')) as server:
        assert asyncio.run(run(server.url)) == '{ "n": 0 }'


def test_async_for_inside_async_with_can_be_left_and_taken_up() -> None:
    """Leaving the loop keeps the connection while the block lasts; leaving the block closes it."""

    async def run(url: str) -> None:
        async with connect(url) as events:
            async for event in events:
                assert event == {"n": 0}
                break
            async for event in events:
                assert event == {"n": 1}
                break
            assert (events.connected, events.received, events.reconnects) == (True, 2, 0)
        assert not events.connected
        assert [event async for event in events] == []

    with EventServer(sending('{"n":0}', '{"n":1}')) as server:
        asyncio.run(run(server.url))


def test_async_for_without_a_block_closes_when_left() -> None:
    """`async for event in connect(url)` alone is enough; leaving the loop hangs up."""

    async def run() -> None:
        loop, left = asyncio.get_running_loop(), asyncio.Event()

        def then(connection: Any) -> None:
            until_closed(connection)
            loop.call_soon_threadsafe(left.set)

        with EventServer(sending('{"n":0}', then=then)) as server:
            async for event in connect(server.url):
                assert event == {"n": 0}
                break
            await asyncio.wait_for(left.wait(), 10)

    asyncio.run(run())


def test_close_ends_a_waiting_iteration() -> None:
    """Closing from another task ends `async for` instead of reconnecting, even between two attempts."""

    async def run(url: str) -> None:
        events = connect(url, first_delay=60, max_delay=60, on_trouble=lambda _: troubled.set())
        troubled = asyncio.Event()
        waiting = asyncio.create_task(anext(aiter(events), "ended"))
        await troubled.wait()
        await events.close()
        assert await asyncio.wait_for(waiting, 10) == "ended"

    asyncio.run(run(f"ws://127.0.0.1:{free_port()}/ws"))


def test_cancelling_loses_nothing() -> None:
    """A read that is given up before a message came does not swallow the next one."""

    async def run() -> None:
        loop, go = asyncio.get_running_loop(), asyncio.Event()

        def handler(connection: Any) -> None:
            connection.send('{"n":0}')
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
            connection.send('{"n":1}')
            until_closed(connection)

        with EventServer(handler) as server:
            async with connect(server.url) as events:
                assert await anext(events) == {"n": 0}
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(events), 0.01)
                go.set()
                assert await anext(events) == {"n": 1}

    asyncio.run(run())


def test_reconnects_when_the_server_dies_and_returns() -> None:
    """A server that dies and comes back on its port is found again; the outage is told once per attempt."""

    async def run() -> None:
        troubles: list[str] = []
        with EventServer(sending('{"n":0}')) as server:
            events = connect(server.url, on_trouble=troubles.append, **FAST)
            assert await anext(events) == {"n": 0}
        waiting = asyncio.create_task(anext(events))
        while len(troubles) < 3:
            await asyncio.sleep(0.001)
        assert not events.connected
        assert events.trouble == troubles[-1]
        with EventServer(sending('{"n":1}'), port=server.port):
            assert await asyncio.wait_for(waiting, 10) == {"n": 1}
            assert repr(events) == f"<connect {server.url}: connected, 2 received>"
            assert events.reconnects == 1
            await events.close()
        assert "closed the connection (1006)" in troubles[0]
        assert "cannot be reached: nothing listens there; trying again in " in troubles[1]

    asyncio.run(run())


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
            await asyncio.wait_for(enough.wait(), 20)
            waiting.cancel()

    with EventServer(lambda _: None) as server:
        asyncio.run(run(server.url))
        assert server.dials == 7
    for number, wait in enumerate(waits):
        full = min(0.1 * 1.618**number, 0.8)
        assert 0.7 * full - 0.051 <= wait <= full + 0.051  # the sentence shows tenths


def test_message_resets_the_delay() -> None:
    """A server that sends one message per connection is dialled again after the first delay each time."""
    numbers = itertools.count()

    def handler(connection: Any) -> None:
        connection.send(f'{{"n":{next(numbers)}}}')

    with EventServer(handler) as server:
        events = asyncio.run(asyncio.wait_for(take(server.url, 20, first_delay=0.01, max_delay=1000), 20))
    assert [event["n"] for event in events] == list(range(20))


@pytest.mark.parametrize(
    ("refusal", "words", "dials"),
    [
        ((401, '{"detail": "a token is required"}'), "a token is required", 1),
        (
            (403, '{"detail": "page http://evil.example may not listen"}'),
            "page http://evil.example may not listen",
            2,
        ),
        ((403, "no"), "HTTP 403 Forbidden", 2),
        ((404, '{"detail": ["odd"]}'), "HTTP 404 Not Found", 2),
    ],
)
def test_refused_handshake_is_final(refusal: tuple[int, str], words: str, dials: int) -> None:
    """An HTTP refusal is raised at once in the server's own words.

    It is tried once more without parameters if these may be the reason.
    """
    with EventServer(until_closed, refuse=refusal) as server:
        with pytest.raises(RequestError) as caught:
            asyncio.run(take(server.url, 1))
        assert str(caught.value) == f"{server.url} refuses: {words}"
        assert server.dials == dials


def test_close_with_1008_is_final() -> None:
    """A close with code 1008 is raised with its reason; what came before it is delivered."""

    async def run(url: str) -> None:
        async with connect(url) as events:
            assert await anext(events) == {"n": 0}
            with pytest.raises(RequestError) as caught:
                await anext(events)
            assert str(caught.value) == f"{url} refuses: unknown parameter 'wher'"

    with EventServer(
        sending('{"n":0}', then=lambda peer: peer.close(1008, "unknown parameter 'wher'"))
    ) as server:
        asyncio.run(run(server.url))
        assert server.dials == 1


@pytest.mark.parametrize("status", [429, 503])
def test_busy_server_is_tried_again(status: int) -> None:
    """A server that is overloaded or starting is tried again."""

    async def run() -> None:
        with EventServer(sending('{"n":0}'), refuse=(status, "busy")) as server:

            def calm(trouble: str) -> None:
                assert f"refuses: HTTP {status}" in trouble
                server.refuse = None

            assert await take(server.url, 1, on_trouble=calm) == [{"n": 0}]
            assert server.dials == 2

    asyncio.run(run())


@pytest.mark.parametrize("garbage", ["hello", "[1, 2]", b"\xff\xfe", '{"a":'])
def test_garbage_is_explained(garbage: str | bytes) -> None:
    """A server that sends something else than events is named, with what it sent."""
    with EventServer(sending(garbage)) as server, pytest.raises(RequestError) as caught:
        asyncio.run(take(server.url, 1))
    assert str(caught.value).startswith(
        f"{server.url} does not send events: an event must be a JSON object, got "
    )


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
    """Without `on_trouble` the first failed attempt is a warning, the others are not."""

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
    with EventServer(sending('{"n":0}')) as server:
        asyncio.run(take(server.url, 1, token="secret"))
        assert server.authorizations == ["Bearer secret"]


def test_repr_shows_the_state() -> None:
    """The text of a connection names the address and what was received, no token."""
    assert repr(connect("localhost:8000", token="secret")) == (
        "<connect ws://localhost:8000/ws: not connected, 0 received>"
    )


def test_no_published_schema() -> None:
    """A server without `/schema` has none; one that cannot be reached is an `OSError`."""
    with answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") as url:
        assert fetch_schema(url) is None
    with pytest.raises(OSError, match="refused"):
        fetch_schema(f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    "body", ["[]", '{"type": "array"}', "<html>", '{"properties": {"a": {"type": "array"}}}']
)
def test_unusable_schema_is_explained(body: str) -> None:
    """Something else at `/schema` is named."""
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    with (
        answering(answer) as url,
        pytest.raises(RequestError, match=r"the schema at http://.*/schema cannot be used: "),
    ):
        fetch_schema(url)


def test_stream_server_sends_the_published_event(server: StreamServer) -> None:
    """The real server's events are dicts with the 23 keys in order, and its schema gives the columns back."""
    events = asyncio.run(take(server.url, 20))
    assert all(tuple(event) == EVENT.names for event in events)
    schema = fetch_schema(server.url)
    assert schema is not None
    assert schema.pandas_dtypes == EVENT.pandas_dtypes
    assert [column.text_format for column in schema] == [column.text_format for column in EVENT]


def test_stream_server_refuses_in_its_own_words(server: StreamServer) -> None:
    """What the real server does not know is raised with its sentence, not tried again for ever."""
    with pytest.raises(RequestError, match="wher"):
        asyncio.run(take(server.websocket_url + "?wher=Market:Europe", 1))
