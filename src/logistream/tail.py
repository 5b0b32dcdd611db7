"""Show a stream in a terminal, or pipe it into another program: the command `logistream tail`."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.table import Table

from logistream.client.client import Messages
from logistream.errors import RequestError, StreamError
from logistream.schema import EVENT_TIME
from logistream.stream.encoding import parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Unpack

    from logistream.client.subscription import ReadOptions, Source

__all__ = ["run"]


_REDRAWS = 8  # a second
_FRAME_LINES = 4  # three rules and the caption
_WIDEST = 22  # a column is folded beyond this
_RATE_SECONDS = 5.0


def run(
    source: Source = "ws://127.0.0.1:8000/ws",
    count: int | None = None,
    *,
    on_trouble: Callable[[str], None] | None = None,
    console: Console | None = None,
    **options: Unpack[ReadOptions],
) -> None:
    """Show the events of a stream until interrupted, or until `count` events have come.

    A terminal shows a live table of the newest events. A pipe gets one line per event, exactly as it was
    sent. After a lost connection reading continues with the next event.

    Parameters
    ----------
    source : str or StreamServer
        Any address that `connect` takes.
    count : int, optional
        Stop after so many events.
    on_trouble : callable, optional
        As in `connect`.
    console : rich.console.Console, optional
        Where a table is drawn; stdout by default.
    **options : ReadOptions
        As in `connect`.

    Raises
    ------
    RequestError
        For an address, a count or an option that is not possible.
    StreamError
        If the server refuses for good.
    """
    console = console or Console()
    show = _show_table if console.is_terminal else _print_lines
    if count is not None and count < 1:
        raise RequestError(f"count must be at least 1, got {count}")
    messages = Messages(source, on_trouble=on_trouble, **options)
    try:
        asyncio.run(show(_first(messages, count), messages, console))
    except RequestError as error:  # by the server: the options were possible
        raise StreamError(str(error)) from error


async def _first(messages: Messages, count: int | None) -> AsyncIterator[str]:
    async with messages:
        async for message in messages:
            yield message
            if messages.received == count:
                return


async def _print_lines(events: AsyncIterator[str], messages: Messages, console: Console) -> None:  # noqa: ARG001 - as `_show_table`
    try:
        async for event in events:
            sys.stdout.write(event + "\n")
            if not messages.ahead:  # what was received together is written together
                sys.stdout.flush()
    finally:
        sys.stdout.flush()


async def _show_table(events: AsyncIterator[str], messages: Messages, console: Console) -> None:
    newest: deque[dict[str, Any]] = deque(maxlen=console.height)
    clock = asyncio.get_running_loop().time
    counts = deque([(clock(), 0)], maxlen=round(_RATE_SECONDS * _REDRAWS))  # when, and how many until then

    def table() -> Table:
        (then, before), now = counts[0], clock()
        counts.append((now, messages.received))
        rate = (messages.received - before) / max(now - then, 1 / _REDRAWS)
        caption = f"{messages.url}: {messages.received:,} events, {rate:,.1f}/s"
        if messages.trouble is not None:
            caption += ", not connected"
        return _table(list(newest), console.width, console.height, caption)

    async def redraw() -> None:
        while True:
            live.update(table(), refresh=True)
            await asyncio.sleep(1 / _REDRAWS)

    with Live(table(), console=console, auto_refresh=False) as live:
        redrawing = asyncio.create_task(redraw())
        try:
            async for event in events:
                newest.append(parse(event))
        finally:
            redrawing.cancel()
            live.update(table(), refresh=True)


def _table(events: list[dict[str, Any]], width: int, height: int, caption: str) -> Table:
    """Return as many of the newest events and of their columns as fit, the time first."""
    table = Table(caption=caption, caption_justify="left", expand=False)
    names = sorted(events[-1], key=lambda name: name != EVENT_TIME.name) if events else []
    room = width - 1
    chosen: list[str] = []
    for name in names:
        widest = max(cell_len(_cell(event, name)) for event in events)
        # A long heading is folded at its blanks, so its longest word counts.
        widest = min(_WIDEST, max(widest, *(cell_len(word) for word in name.split() or [name])))
        if room < widest + 3:
            break
        room -= widest + 3
        chosen.append(name)
        number = isinstance(events[-1].get(name), int | float)
        table.add_column(name, width=widest, overflow="ellipsis", justify="right" if number else "left")
    heading = max((len(name.split()) for name in chosen), default=1)  # lines of it, at most
    for event in events[-max(1, height - _FRAME_LINES - heading) :]:
        table.add_row(*(_cell(event, name) for name in chosen))
    return table


def _cell(event: dict[str, Any], name: str) -> str:
    value = event.get(name)
    if name == EVENT_TIME.name:
        return str(value)[11:23]  # hours to milliseconds
    return "" if value is None else str(value)
