"""The servers that the stream server is measured against; each runs in a process of its own.

    python tests/benchmarks/contenders.py reference [--rate EVENTS_PER_SECOND]
    python tests/benchmarks/contenders.py broadcast

Prints the address of the WebSocket and serves until it is terminated.

`reference` is the design that such servers usually have: a FastAPI endpoint that puts the client on a list,
and one task that makes an event as a dict, writes it with `json.dumps`, awaits `send_text` for one client
after the other, and sleeps. `broadcast` only sends one event, made beforehand, over and over with
`websockets.broadcast`, which frames it once for all clients. Both use uvloop if it is installed, as uvicorn
does.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import logging
import math
import random
import socket
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from websockets.asyncio.server import ServerConnection, broadcast, serve

from logistream import load_model
from logistream.model.sampling import Sampler
from logistream.schema import EVENT_TIME
from logistream.stream.encoding import Encoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["UVLOOP", "reference_app"]

UVLOOP = importlib.util.find_spec("uvloop") is not None

ENOUGH = 1 << 18
"""Bytes in the write buffer of a connection above which `broadcast` waits: nothing else makes it wait."""

TURN = 32
"""Messages after which `broadcast` yields to the event loop, which then sees who connects and leaves."""


def event_maker() -> Callable[[], dict[str, Any]]:
    """Return a function that draws an event as the reference design does: uniform, independent columns."""
    model = load_model()
    draws: dict[str, Callable[[], Any]] = {}
    for column in model.event_schema:
        if column.name == EVENT_TIME.name:
            draws[column.name] = now
        elif column.kind == "category":
            draws[column.name] = partial(random.choice, list(model.categories[column.name]))
        elif column.kind == "integer":
            draws[column.name] = partial(random.randint, 0, 5)
        elif column.kind == "number":
            draws[column.name] = lambda: round(random.uniform(-100, 500), 2)
        else:
            draws[column.name] = lambda: f"{datetime.now(UTC):%m/%d/%Y %H:%M}"
    return lambda: {name: draw() for name, draw in draws.items()}


def now() -> str:
    """Return the time as the events of both servers have it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def reference_app(rate: float) -> FastAPI:
    """Return the reference design; at an infinite rate its sleep only yields to other tasks."""
    clients: list[WebSocket] = []
    make = event_maker()

    async def produce() -> None:
        while True:
            if not clients:
                await asyncio.sleep(0.01)
                continue
            message = json.dumps(make())
            for client in list(clients):
                try:
                    await client.send_text(message)
                except (WebSocketDisconnect, RuntimeError):  # it has left
                    if client in clients:
                        clients.remove(client)
            await asyncio.sleep(1 / rate)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(produce())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.websocket("/ws")
    async def events(websocket: WebSocket) -> None:
        await websocket.accept()
        clients.append(websocket)
        async for _ in websocket.iter_text():
            pass
        if websocket in clients:
            clients.remove(websocket)

    return app


def serve_reference(rate: float) -> None:
    """Run the reference design under the defaults of uvicorn."""
    # Named as TCP, as uvicorn's own are: else asyncio leaves Nagle's algorithm on, and each event waits.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    print(f"ws://127.0.0.1:{listener.getsockname()[1]}/ws", flush=True)
    uvicorn.Server(uvicorn.Config(reference_app(rate), log_level="error")).run(sockets=[listener])


async def serve_broadcast() -> None:
    """Send one ready-made event to all, as fast as the slowest client reads it."""
    model = load_model()
    times = np.array([datetime.now(UTC).timestamp() * 1e6], dtype=np.int64)
    message = Encoder(model.event_schema).encode(Sampler(model).batch(0, 1, times))[0].decode()
    clients: set[ServerConnection] = set()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it warns of each message to one that has left

    async def handle(connection: ServerConnection) -> None:
        clients.add(connection)
        try:
            await connection.wait_closed()
        finally:
            clients.discard(connection)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws", flush=True)
        while True:
            if not clients:
                await asyncio.sleep(0.01)
                continue
            for _ in range(TURN):
                broadcast(clients, message)
                if any(client.transport.get_write_buffer_size() > ENOUGH for client in clients):
                    break
            await asyncio.sleep(0)


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("design", choices=("reference", "broadcast"))
    parser.add_argument("--rate", type=float, default=math.inf, help="of the reference (default: unbounded)")
    options = parser.parse_args()
    if options.design == "reference":
        serve_reference(options.rate)
        return
    if UVLOOP:
        import uvloop

        uvloop.run(serve_broadcast())
    else:
        asyncio.run(serve_broadcast())


if __name__ == "__main__":
    main()
