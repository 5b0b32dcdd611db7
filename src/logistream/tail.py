"""Show a stream in a terminal, or pipe it into another program: the command `logistream tail`."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections import deque
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.table import Table

from logistream.client.client import Messages, place_of
from logistream.errors import DataError, RequestError, StreamError
from logistream.schema import EVENT_NUMBER, EVENT_TIME
from logistream.stream.encoding import parse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
    from typing import Unpack

    from logistream.client.subscription import ReadOptions, Source

__all__ = ["run"]


_REDRAWS = 8  # a second
_FRAME_LINES = 4  # three rules and the caption
_WIDEST = 22  # a column is folded beyond this
_RATE_SECONDS = 5.0
_LEADING = {EVENT_NUMBER.name: 0, EVENT_TIME.name: 1}  # the first columns
_STEP = 1 << 16  # bytes read at once from the end of a file


def run(
    source: Source = "ws://127.0.0.1:8000/ws",
    count: int | None = None,
    *,
    on_trouble: Callable[[str], None] | None = None,
    console: Console | None = None,
    append: str | os.PathLike[str] | None = None,
    faults: bool = True,
    **options: Unpack[ReadOptions],
) -> None:
    """Show what a stream delivers until interrupted, or until `count` events have come.

    A terminal shows a live table of the newest events. A pipe gets one line per event, exactly as it was
    sent. After a lost connection reading continues with the next delivery.

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
    append : path, optional
        A file to whose end the events are written instead, numbered, one a line, each with the place of its
        delivery unless `faults` is false. If it holds events, reading starts with the delivery after the last
        of them, in place of `start`.
    faults : bool, default=True
        As in `connect`.
    **options : ReadOptions
        As in `connect`.

    Raises
    ------
    RequestError
        For an address, a count or an option that is not possible.
    DataError
        If the file to append to ends with anything but an event of this stream with its number.
    StreamError
        If the server refuses for good, or there is nowhere to write to.
    """
    if count is not None and count < 1:
        raise RequestError(f"count must be at least 1, got {count}")
    if append is not None:
        with _opened(Path(append)) as file:
            last = _last_event(file, append, faults=faults)
            if last is not None:
                options["start"], count = last[0], None if count is None else count + 1
            options["numbered"] = True
            output = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
            after = None if last is None else (last[1], last[2], append)
            messages = Messages(source, faults=faults, placed=faults, on_trouble=on_trouble, **options)
            _run(messages, count, partial(_print_lines, output=output, after=after))
        return
    if sys.stdout is None and console is None:
        raise StreamError("there is no output: it was closed")
    console = console or Console()
    show = partial(_show_table, console=console) if console.is_terminal else _print_lines
    _run(Messages(source, faults=faults, on_trouble=on_trouble, **options), count, show)


def _run(
    messages: Messages,
    count: int | None,
    show: Callable[[AsyncIterator[str], Messages], Coroutine[Any, Any, None]],
) -> None:
    async def reading() -> None:
        async with aclosing(_first(messages, count)) as events:  # also after an error in `show`
            await show(events, messages)

    try:
        asyncio.run(reading())
    except RequestError as error:  # by the server: the options were possible
        raise StreamError(str(error)) from error


def _opened(path: Path) -> IO[bytes]:
    """Open a file to append to, which is made if there is none."""
    try:
        return open(path, "ab+")  # noqa: PTH123 - as what it is used for; the caller closes it
    except OSError as error:
        raise StreamError(f"{path} cannot be written: {error.strerror}") from error


def _last_event(
    file: IO[bytes], path: str | os.PathLike[str], *, faults: bool
) -> tuple[str, str, int] | None:
    """Return place, line and end of the last event in a file, None if the file is empty.

    A part of a line may follow, because its writer was killed.
    """
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return None
    tail = b""
    while size and tail.count(b"\n") < 2:
        step = min(size, _STEP)
        size = file.seek(size - step)
        tail = file.read(step) + tail
    kept, end, _ = tail.rpartition(b"\n")
    line = kept.rpartition(b"\n")[2].decode(errors="replace") if end else ""
    start = place_of(line)
    placed = start is not None
    if start is None:
        with suppress(RequestError, KeyError):
            number = parse(line)[EVENT_NUMBER.name]
            start = str(number) if isinstance(number, int) else None
    if start is None:
        raise DataError(
            f"{os.fspath(path)} does not end with an event and its number: append to a file that "
            f"logistream tail --append has made, or to a new one"
        )
    if placed != faults:
        made = "without --no-faults: leave it out" if placed else "with --no-faults: give it again"
        raise DataError(f"{os.fspath(path)} was made {made}, or append to another file")
    return start, line, size + len(kept) + len(end)


async def _first(messages: Messages, count: int | None) -> AsyncGenerator[str]:
    async with messages:
        async for message in messages:
            yield message
            if messages.received == count:
                return


async def _print_lines(
    events: AsyncIterator[str],
    messages: Messages,
    *,
    output: TextIO | None = None,
    after: tuple[str, int, str | os.PathLike[str]] | None = None,
) -> None:
    """Write the events to a file, or to stdout, each as it was sent.

    With `after`, the last line of a file, where it ends, and the path, the first event must be that one, and
    is left out; what follows it in the file is removed.
    """
    output = output or sys.stdout
    try:
        async for event in events:
            if after is not None:
                if event != after[0]:
                    raise DataError(
                        f"{os.fspath(after[2])} ends with another event than {messages.url} has at that "
                        f"number: it holds another stream, or other columns; append to another file"
                    )
                output.truncate(after[1])
                after = None
                continue
            output.write(event + "\n")
            if not messages.ahead:  # what was received together is written together
                output.flush()
    finally:
        output.flush()


async def _show_table(events: AsyncIterator[str], messages: Messages, *, console: Console) -> None:
    newest: deque[dict[str, Any]] = deque(maxlen=console.height)
    cut = 0  # events that the wire has cut short, which no table can show
    clock = asyncio.get_running_loop().time
    counts = deque([(clock(), 0)], maxlen=round(_RATE_SECONDS * _REDRAWS))  # when, and how many until then

    def table() -> Table:
        (then, before), now = counts[0], clock()
        counts.append((now, messages.received))
        rate = (messages.received - before) / max(now - then, 1 / _REDRAWS)
        caption = f"{messages.url}: {messages.received:,} events, {rate:,.1f}/s"
        if cut:
            caption += f", {cut:,} of them cut short"
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
                try:
                    newest.append(parse(event))
                except RequestError:
                    cut += 1
        finally:
            redrawing.cancel()
            live.update(table(), refresh=True)


def _table(events: list[dict[str, Any]], width: int, height: int, caption: str) -> Table:
    """Return as many of the newest events and of their columns as fit, number and time first."""
    table = Table(caption=caption, caption_justify="left", expand=False)
    known = dict.fromkeys(name for event in reversed(events) for name in event)  # a key may be missing
    names = sorted(known, key=lambda name: _LEADING.get(name, len(_LEADING)))
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
