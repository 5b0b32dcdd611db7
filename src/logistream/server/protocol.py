"""Send events to a connection: under our own server, the WebSocket frames of many events in one write.

Sending a message through ASGI costs far more than its bytes do. So our server gives the application direct
access to the transport of a connection. Under any other ASGI server, each message goes through `send`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from fastapi import WebSocketDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode
from websockets.protocol import State

from logistream.server.connections import drop, pending_bytes, set_unsent_limit
from logistream.server.feed import WRITE_BYTES
from logistream.server.frames import frame

if TYPE_CHECKING:
    from asyncio import BaseTransport
    from collections.abc import Callable

    from fastapi import WebSocket
    from uvicorn._types import ASGISendEvent
    from websockets.frames import Close, Frame
    from websockets.http11 import Request

    from logistream.server.connections import ConnectionLimit
    from logistream.server.feed import Feed, Part
    from logistream.stream.query import Place

__all__ = [
    "LINGER",
    "REQUEST_WITHIN",
    "TAKE_WITHIN",
    "FrameProtocol",
    "FrameSink",
    "MessageSink",
    "RequestProtocol",
    "sink_for",
]


_EXTENSION = "logistream.frames"
LINGER = 10.0
"""Seconds that the peer has after the end of a connection to receive what was sent before."""

REQUEST_WITHIN = 10.0
"""Seconds from the connection to the end of its first request."""

_NO_HANDSHAKE = b"the WebSocket handshake is not a valid request"
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b'Content-Length: %d\r\n\r\n{"detail":"%s"}' % (len(_NO_HANDSHAKE) + 13, _NO_HANDSHAKE)
)

TAKE_WITHIN = 30.0
"""Seconds within which the peer of a request must take something of what waits for it."""

_LITTLE = 1 << 14
"""Bytes that are written at once, and that the system holds unsent, for a reader that is not fast. What is on
its way to a slow reader delays the answers to its pings, and it would give up."""

_SPAN = 1 << 20  # bytes over which it is measured how long a reader lets writes wait
_FAST = 2.0  # seconds for which those of a fast reader wait together
_FAST_ENOUGH = 10.0  # the same to become fast; a distant reader takes a while to say that it has read
_SLOW = 0.5  # seconds; who lets a write wait for longer is not fast any more

_WINDOW = 3 * _LITTLE
"""Bytes after which a reader that is not fast must have read some. It says so by answering pings, which are
sent among the events: the system of a reader takes half a megabyte that the reader itself has not seen."""

_READ = b"read"  # how these pings begin
_ANSWERED_WITHIN = 0.5  # seconds; who takes longer for the first one may not answer pings at all
_PING = 0x89
_UNLIMITED = 0x7FFFFFFF


class RequestProtocol(H11Protocol):
    """uvicorn's HTTP protocol, with a limit on connections, and time limits.

    The first request must come within `REQUEST_WITHIN` seconds, and what waits for the peer must become less
    every `TAKE_WITHIN` seconds.
    """

    def __init__(self, *args: Any, limit: ConnectionLimit, **kwargs: Any) -> None:  # noqa: ANN401 - as uvicorn's
        super().__init__(*args, **kwargs)
        self._limit = limit
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Start the time limit for the first request, or refuse the connection."""
        super().connection_made(transport)
        if len(self.connections) > self._limit.most:
            self._limit.refuse(transport)
            self._watch_peer()
            return
        self.loop.call_later(REQUEST_WITHIN, self._abort_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the time limits."""
        super().connection_lost(exc)
        self._unwatch_peer()

    def data_received(self, data: bytes) -> None:
        """Receive bytes, and ignore those of a connection that was refused."""
        if not self.transport.is_closing():
            super().data_received(data)

    def pause_writing(self) -> None:
        """Start the time limit for the peer."""
        super().pause_writing()
        self._watch_peer()

    def resume_writing(self) -> None:
        """End the time limit for the peer."""
        super().resume_writing()
        self._unwatch_peer()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even if its peer has not taken the last answer."""
        super().timeout_keep_alive_handler()
        if self in self.connections:
            self._watch_peer()

    def on_response_complete(self) -> None:
        """Have the last answer of a connection taken in time."""
        super().on_response_complete()
        if self.transport.is_closing() and self in self.connections:
            self._watch_peer()

    def _abort_if_idle(self) -> None:
        if getattr(self, "scope", None) is None:  # no request has come yet
            self.transport.abort()

    def _watch_peer(self) -> None:
        if self._watch is None:
            self._watch = self.loop.call_later(
                TAKE_WITHIN, self._abort_if_stalled, pending_bytes(self.transport)
            )

    def _unwatch_peer(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _abort_if_stalled(self, before: int) -> None:
        self._watch = None
        if pending_bytes(self.transport) < before:
            self._watch_peer()
        else:
            drop(self.transport)


class FrameProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol; an application can also write whole frames to it."""

    on_ready: Callable[[], None] | None = None
    room = _LITTLE
    """Bytes that may be written at once, roughly."""

    _lingering: asyncio.TimerHandle | None = None
    _paused = 0.0  # when a write had to wait
    _waited, _written = 0.0, 0  # seconds for which writes waited in this span, and bytes
    _total = 0  # bytes of all frames
    _before = 0  # of which the peer had taken so many when it was looked at last
    _asked, _read = 0, 0  # how many of them a ping has followed, and how many the peer has read for certain
    _answers = True  # whether the peer answers these pings

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin as for a reader that is not fast."""
        super().connection_made(transport)
        self._set_room(_LITTLE)

    def _set_room(self, room: int) -> None:
        """Set how much is on its way to the reader at a time."""
        self.room = room
        # `resume_writing` is called while there is still something to send.
        self.transport.set_write_buffer_limits(high=room, low=room // 2)
        set_unsent_limit(self.transport, room if room == _LITTLE else _UNLIMITED)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time limit for the peer."""
        super().connection_lost(exc)
        if self._lingering is not None:
            self._lingering.cancel()

    def data_received(self, data: bytes) -> None:
        """Receive bytes; answer a handshake that cannot be read, which uvicorn would leave unanswered."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.handshake_initiated = self.handshake_complete = self.close_sent = True
            self.transport.write(b"".join(self.conn.data_to_send()) or _BAD_REQUEST)
            self.transport.close()

    def handle_cont(self, event: Frame) -> None:
        """Receive a fragment; ignore empty ones, which no limit on size would count."""
        if event.data or event.fin:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Check a message and discard it: the application ignores what a reader sends."""
        message, self.frames = b"".join(self.frames), []
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                message.decode()
            except UnicodeDecodeError:  # uvicorn would log it, and fail if a close frame came with it
                self.conn.fail(CloseCode.INVALID_DATA, "a text message must be UTF-8")
                self.handle_parser_exception()

    def send_keepalive_ping(self) -> None:
        """Send a ping, and note what it queues behind."""
        super().send_keepalive_ping()
        self._before = self._total - pending_bytes(self.transport)

    def keepalive_timeout(self) -> None:
        """Disconnect a peer that neither answers pings nor takes what waits for it.

        It is not sent a close frame, which would queue behind unread data.
        """
        taken = self._total - pending_bytes(self.transport)
        if taken > self._before and self.ping_timeout is not None:
            self._before = taken
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
            return
        super().keepalive_timeout()
        self.transport.abort()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Give the peer some seconds to receive what was sent before the end."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._lingering = self.loop.call_later(LINGER, self.transport.abort)

    def handle_connect(self, event: Request) -> None:
        """Put this connection into the scope of the application."""
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"][_EXTENSION] = self  # type: ignore[assignment]

    def resume_writing(self) -> None:
        """Call the application when the write buffer has room again."""
        super().resume_writing()
        self._go_on()

    def handle_pong(self, event: Frame) -> None:
        """Note how much the peer has read, if this is the answer to such a ping."""
        super().handle_pong(event)
        data = bytes(event.data)
        read = int.from_bytes(data[len(_READ) :], "big") if data.startswith(_READ) else 0
        if self._read < read <= self._asked:
            waiting = self._is_ahead
            self._read, self._answers = read, True
            if waiting:
                self._go_on()

    def handle_close(self, event: Frame) -> None:
        """Answer a close frame; the reader still receives what was sent before."""
        if self.close_sent or self.transport.is_closing():
            super().handle_close(event)
        else:
            self._end_with(self.conn.close_rcvd)

    def handle_parser_exception(self) -> None:
        """Close because of what the peer has sent; it still receives what was sent before."""
        if self.close_timer is None:  # else this is more of the same
            self._end_with(self.conn.close_sent)

    def _end_with(self, close: Close | None) -> None:
        assert close is not None  # noqa: S101 - a frame has just come, or was prepared
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self._write_the_end()
        self.close_sent = True
        self._close()

    def _ask_what_is_read(self) -> None:
        """Send a ping that the peer answers when it has read everything until here."""
        if not self._asked:
            self.loop.call_later(_ANSWERED_WITHIN, self._doubt)
        self._asked = self._total
        self.transport.write(frame(_PING, _READ + self._total.to_bytes(8, "big")))

    def _doubt(self) -> None:
        """Do without the answers of a peer that has not given one."""
        if not self._read:
            waiting, self._answers = self._is_ahead, False
            if waiting:
                self._go_on()

    @property
    def _is_ahead(self) -> bool:
        """Whether the peer must read before more is written."""
        return self._answers and self.room == _LITTLE and self._total - self._read >= _WINDOW

    def _go_on(self) -> None:
        """Call the application if more may be written now."""
        if self._is_ahead or not self.writable.is_set():
            return
        waited = self.loop.time() - self._paused
        self._waited += waited
        if self.room != _LITTLE and waited > _SLOW:
            self._set_room(_LITTLE)
            if self._may_write:
                self._ask_what_is_read()
        if self.on_ready is not None:
            self.on_ready()

    @property
    def takes_frames(self) -> bool:
        """Whether frames may be written: the peer reads them, and no side has begun to close."""
        return self.writable.is_set() and not self._is_ahead and self._may_write

    @property
    def _may_write(self) -> bool:
        return (
            self.handshake_complete
            and not self.close_sent
            and not self.disconnected
            and self.conn.state is State.OPEN
            and not self.transport.is_closing()
        )

    def write_frames(self, frames: bytes | memoryview) -> None:
        """Write whole frames; only while `takes_frames`."""
        self.transport.write(frames)
        self._total += len(frames)
        self._written += len(frames)
        if self._written >= _SPAN:
            most = _FAST_ENOUGH if self.room == _LITTLE else _FAST
            room = WRITE_BYTES if self._waited < most else _LITTLE
            if room != self.room:
                self._set_room(room)
            self._waited, self._written = 0.0, 0
        if self.room == _LITTLE and self._total - self._asked >= _LITTLE // 2:
            self._ask_what_is_read()
        if not self.writable.is_set() or self._is_ahead:
            self._paused = self.loop.time()

    def end(self, code: int) -> None:
        """Close the connection from this side, with a code."""
        if not self.close_sent and self.conn.state is State.OPEN:
            self.conn.send_close(code)
            self._write_the_end()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": code})
            self.close_sent = True
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    def shutdown(self) -> None:
        """Close with the code for a server that stops, instead of uvicorn's for a restart."""
        if self.handshake_complete and not self.close_sent:
            self.stop_keepalive()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.GOING_AWAY})
            if self.conn.state is State.OPEN:  # else the peer has closed first
                self.conn.send_close(CloseCode.GOING_AWAY, "the server stops")
                self._write_the_end()
                self.close_sent = True
                self._close()
            else:
                self.transport.close()
            return
        super().shutdown()

    def _write_the_end(self) -> None:
        """Have the system take all that is left: it still sends that when this process has ended."""
        set_unsent_limit(self.transport, _UNLIMITED)
        self.transport.write(b"".join(self.conn.data_to_send()))

    def _close(self) -> None:
        """Close after the close frame; if the reader still has pings to answer, let it close first.

        An answer at a closed connection would reset it, and the reader would lose what it has not read yet,
        the close frame too.
        """
        if self._read < self._asked:
            if self.transport.can_write_eof():
                with contextlib.suppress(OSError):  # the reader has reset the connection
                    self.transport.write_eof()
            self.close_timer = self.loop.call_later(LINGER, self.transport.close)
        else:
            self.transport.close()

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message of the application."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # else uvicorn logs an error for every refusal


class FrameSink:
    """The connection of a reader under our own server."""

    def __init__(self, protocol: FrameProtocol, on_ready: Callable[[], None]) -> None:
        self._protocol = protocol
        protocol.on_ready = on_ready

    @property
    def ready(self) -> bool:
        """Whether more can be written now."""
        return self._protocol.takes_frames

    @property
    def room(self) -> int:
        """Bytes that may be written at once, roughly."""
        return self._protocol.room

    def put(self, feed: Feed, part: Part, start: Place, stop: Place, missed: int | None) -> int:
        """Write the frames from one place of a part to another; return the number of bytes."""
        frames = feed.wire(part, start, stop, missed)
        if len(frames):
            self._protocol.write_frames(frames)
        return len(frames)

    def end(self) -> None:
        """Close the connection, since everything that was requested has been sent."""
        self._protocol.end(CloseCode.NORMAL_CLOSURE)

    def fail(self) -> None:
        """Close the connection because of an internal error."""
        self._protocol.end(CloseCode.INTERNAL_ERROR)

    async def run(self) -> None:
        """Do nothing: `put` writes at once."""


class MessageSink:
    """The connection of a reader under another ASGI server; `run` must run as long as it is used."""

    def __init__(self, websocket: WebSocket, on_ready: Callable[[], None]) -> None:
        self._websocket, self._on_ready = websocket, on_ready
        self._waiting: list[str | bytes] = []
        self._some = asyncio.Event()
        self._code: CloseCode | None = None  # with which to close when everything has been sent

    @property
    def ready(self) -> bool:
        """Whether everything that was put has been sent."""
        return not self._waiting and self._code is None

    @property
    def room(self) -> int:
        """Bytes that may be put at once, roughly."""
        return _LITTLE

    def put(self, feed: Feed, part: Part, start: Place, stop: Place, missed: int | None) -> int:
        """Queue the messages from one place of a part to another; return their length."""
        self._waiting = feed.messages(part, start, stop, missed)
        self._some.set()
        return sum(map(len, self._waiting))

    def end(self) -> None:
        """Close the connection, since everything that was requested has been put."""
        self._code = CloseCode.NORMAL_CLOSURE
        self._some.set()

    def fail(self) -> None:
        """Close the connection because of an internal error."""
        self._code = CloseCode.INTERNAL_ERROR
        self._some.set()

    async def run(self) -> None:
        """Send the queued messages until the reader has left."""
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await self._some.wait()
                self._some.clear()
                for message in self._waiting:
                    if isinstance(message, str):
                        await self._websocket.send_text(message)
                    else:
                        await self._websocket.send_bytes(message)
                self._waiting = []
                if self._code is not None:
                    await self._websocket.close(self._code)
                    return
                self._on_ready()


def sink_for(websocket: WebSocket, on_ready: Callable[[], None]) -> FrameSink | MessageSink:
    """Return the fastest sink for the events of a reader.

    Parameters
    ----------
    websocket : WebSocket
        Accepted.
    on_ready : callable
        Called when more can be written.
    """
    protocol: Any = websocket.scope.get("extensions", {}).get(_EXTENSION)
    if isinstance(protocol, FrameProtocol):
        return FrameSink(protocol, on_ready)
    return MessageSink(websocket, on_ready)
