"""Encoded events, made once for all readers with the same selection, in parts.

A part is an aligned run of slots, encoded for one selection; without faults of the wire each slot has the
event with its number. Parts of the past are long. Parts of the
present are short, because a change of the rate alters times that are still to come; then they are made again.
Parts are made ahead of their time on a thread of their own, so that sending never waits for the generator.
What is kept is bounded by its size in memory, for all selections together.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from logistream.errors import StreamError
from logistream.model.sampling import BLOCK
from logistream.schema import EVENT_NUMBER, EVENT_TIME
from logistream.server.frames import BINARY, LARGEST_HEADER, ROOM, TEXT, frame, frame_in_place, frame_strings
from logistream.stream.corruption import corrupt_columns, corrupt_strings, faulty_schema
from logistream.stream.deliveries import written_places
from logistream.stream.encoding import CsvEncoder, Encoder, Tables, cloud_event_attributes
from logistream.stream.query import Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from numpy.typing import NDArray

    from logistream.schema import Schema
    from logistream.stream.corruption import Corruptions
    from logistream.stream.deliveries import Deliveries
    from logistream.stream.query import Selection
    from logistream.stream.stream import Stream

    _Key: TypeAlias = "tuple[Selection, int, int, int]"  # slots, and index within the first one

__all__ = ["WRITE_BYTES", "Feed", "Feeds", "Part", "in_schema"]


logger = logging.getLogger(__name__)

_LONG, _SHORT = BLOCK, 512  # slots of a part
_INDEX_BITS = 32  # of a place in one number, below the slot
_MOST_ROWS = 4 * BLOCK  # deliveries in a part: faults can put very many into one slot
_FAST = 8192  # events per second from which short parts are not worth it
_KEPT_BYTES = 1 << 22
_KEPT_AT_LEAST = 4  # parts
_UNFETCHED = 2  # parts of the past that readers wait for, made and not fetched yet
_FETCHED_WITHIN = 1.0  # seconds; after that, the reader of a part is taken to need it no more
_KEPT_STARTS = 8  # spans of which it is known where their parts begin
_KEPT_MESSAGES = 4  # of each feed, for readers that are at the same place
_LARGEST_KEPT = 1 << 16
WRITE_BYTES = 1 << 18
"""Handed to a connection at once, roughly."""

_LIVE, _PAST, _LATER = range(3)
"""What is made first: what is live, then what readers of the past wait for, then what they need later."""

_NEAR = 16 * _LONG  # events; a reader of the past that is no further ahead of another one waits for it
_MOST_WAITS = 32  # parts that are made first for readers behind one

_FULL_DICTIONARIES = 1024  # rows from which a batch is sent with all strings that the model knows


@dataclass(frozen=True, slots=True)
class Part:
    """A run of events, encoded.

    Attributes
    ----------
    first, stop : int
        The slots that it covers, `stop` excluded. Without faults of the wire a slot is an event.
    entries : int
        How many entries the timeline had when it was made.
    places : ndarray of int64 or None
        The place of each row, as slot after `first` times 2**32 plus index; None for one row in each slot.
    ends : ndarray of int64 or None
        Where the bytes of each begin in `data`, and where the last ends; None for Arrow.
    data : memoryview or pyarrow.RecordBatch
        Frames, lines, or columns.
    size : int
        Memory that it takes, roughly, in bytes.
    rest : int
        How many deliveries of the slot `stop` are in it as well.
    more : bool
        Whether it ends early, because there are too many deliveries for one part.
    faulty : bool
        Whether faults of the wire can have changed it.
    """

    first: int
    stop: int
    entries: int
    places: NDArray[np.int64] | None
    ends: NDArray[np.int64] | None
    data: Any
    size: int
    rest: int = 0
    more: bool = False
    faulty: bool = False

    @property
    def end(self) -> Place:
        """The place after its last delivery."""
        return Place(self.stop, self.rest)

    def row(self, place: Place) -> int:
        """Return how many of its deliveries come before a place."""
        slot = place.slot - self.first
        if self.places is None:
            return slot + (place.index > 0)
        return int(np.searchsorted(self.places, (slot << _INDEX_BITS) + place.index))

    def place(self, row: int) -> Place:
        """Return the place of a row; `end` after the last one."""
        if self.places is None:
            return Place(self.first + row)
        if row >= len(self.places):
            return self.end
        slot, index = divmod(int(self.places[row]), 1 << _INDEX_BITS)
        return Place(self.first + slot, index)

    def rows(self, start: int, stop: int) -> memoryview:
        """Return what rows `start` to `stop` have in `data`."""
        assert self.ends is not None  # noqa: S101 - not called for Arrow
        found: memoryview = self.data[int(self.ends[start]) : int(self.ends[stop])]
        return found


class _Drawn(NamedTuple):
    """What is delivered in slots `start` to `stop` (exclusive), not encoded."""

    start: int
    stop: int
    entries: int
    batch: pa.RecordBatch
    found: Deliveries


class Feed:
    """The events of a stream for one selection; `part` and `wire` are for the thread of the event loop."""

    def __init__(self, feeds: Feeds, stream: Stream, selection: Selection) -> None:
        self._feeds, self._stream = feeds, stream
        self.selection = selection
        self.schema = selection.placed_schema(stream.model)
        self._event_schema = selection.schema(stream.model)
        self._place_field = pa.field(self.schema.names[0], pa.string(), nullable=False)
        self._row_bytes = 8 * len(self.schema)
        self._encoder = _encoder(self.schema, selection, feeds.tables)
        self._source = f"/logistream/{quote(stream.model.name, safe='')}"
        self._density = 1.0  # deliveries of a slot, where faults of the wire were last
        self._drawn: _Drawn | None = None
        self._starts: dict[tuple[int, int], list[Place]] = {}  # of the parts of a span, if there are several
        self._messages: OrderedDict[tuple[Place, Place, int | None], bytes | memoryview] = OrderedDict()

    @property
    def header(self) -> bytes:
        """What stands before the first event."""
        return self._encoder.header if isinstance(self._encoder, CsvEncoder) else b""

    def span(self, number: int, now: int) -> tuple[int, int]:
        """Return first and stop of the part that holds an event, if `now` is the next event to happen.

        Parts stay short until another long one has passed: else live readers, which are some events behind,
        would all wait for a long one whenever it becomes the past.
        """
        first = number - number % _LONG
        if first + 2 * _LONG <= now or self._stream.rate > _FAST:
            return first, first + _LONG
        first = number - number % _SHORT
        return first, first + _SHORT

    def part(self, place: Place, now: int, *, live: bool) -> Part | None:
        """Return the part that holds a place, None if it is still being made; then `on_made` is called.

        Parameters
        ----------
        place : Place
            Of the delivery.
        now : int
            The next event to happen.
        live : bool
            Whether a live reader needs it, which comes before those of the past.
        """
        return self._part(place, now, _LIVE if live else _PAST)

    def _part(self, place: Place, now: int, urgency: int) -> Part | None:
        """Return a part; where very many deliveries are in a span, the parts of it are made in order."""
        first, stop = self.span(place.slot, now)
        starts = self._starts.get((first, stop))
        start = Place(first) if starts is None else starts[bisect_right(starts, place) - 1]
        while True:
            part = self._feeds.get(self, start, stop, place.slot, urgency)
            if part is None or not part.more or place < part.end:
                return part
            start = part.end
            starts = self._starts.setdefault((first, stop), [Place(first)])
            if start > starts[-1]:
                starts.append(start)
            while len(self._starts) > _KEPT_STARTS:
                del self._starts[next(iter(self._starts))]

    def past(self, start: Place, stop: int) -> Part | None:
        """Return events that have happened, None if they are still being made; then `on_made` is called.

        Parameters
        ----------
        start : Place
            Of the first delivery.
        stop : int
            The slot after the last one, within the same part of the past.
        """
        return self._feeds.get(self, start, stop, stop - 1, _PAST)

    def prefetch(self, place: Place, now: int, *, live: bool) -> Place:
        """Request the part that holds a place ahead of its use; return where the next one begins, if known.

        The arguments are those of `part`.
        """
        part = self._part(place, now, _LIVE if live else _LATER)
        return part.end if part is not None and part.more else Place(self.span(place.slot, now)[1])

    def settled(self, part: Part) -> int:
        """Return the first slot from which on a part may be wrong, since the timeline has changed."""
        entries = self._stream.timeline.entries
        stop = part.stop + (part.rest > 0)
        return stop if part.entries == len(entries) else min(stop, entries[part.entries].first)

    def make(self, start: Place, stop: int) -> Part:
        """Make a part, of events that have happened or will unless the timeline changes."""
        entries = self._stream.timeline.entries
        low = max(start.slot, entries[0].first)
        high = max(low, min(stop, entries[-1].first)) if entries[-1].paused else stop
        if self.has_faults(low, high):
            return self._make_faulty(Place(low, start.index), high, len(entries))
        batch = self._stream.batch(low, high)
        places = None
        numbers: NDArray[np.int64] = np.arange(low, high, dtype=np.int64)
        if self.selection.where:
            mask = self._mask(batch)
            batch, numbers = batch.filter(pa.array(mask)), numbers[mask]
            places = (numbers - low) << _INDEX_BITS
        batch = self._with_numbers(batch, numbers, numbers, np.zeros(len(numbers), np.int64))
        data, ends, size = self._encoded(batch, numbers, None)
        return Part(low, high, len(entries), places, ends, data, size)

    def _make_faulty(self, start: Place, stop: int, entries: int) -> Part:
        """Make a part of deliveries with faults of the wire, or of as many of them as a part can have."""
        drawn = self._deliveries(start, stop, entries)
        found = drawn.found
        places = ((found.slots - start.slot) << _INDEX_BITS) + found.indices
        begin = int(np.searchsorted(places, start.index))
        last = begin + _MOST_ROWS
        end, rest = drawn.stop, 0
        if last < len(places):
            end, rest = int(found.slots[last]), int(found.indices[last])
        batch = drawn.batch.slice(begin, _MOST_ROWS)
        rows: NDArray[np.int64] = np.arange(begin, begin + batch.num_rows)
        if self.selection.where:
            mask = self._mask(batch)
            batch, rows = batch.filter(pa.array(mask)), rows[mask]
        numbers = found.numbers[rows]
        batch = self._with_numbers(batch, numbers, found.slots[rows], found.indices[rows])
        corrupted = {}
        if found.corruptions:
            hit = np.array(list(found.corruptions))
            hit = hit[np.isin(hit, rows)]
            corrupted = {
                row: found.corruptions[of]
                for row, of in zip(np.searchsorted(rows, hit).tolist(), hit.tolist(), strict=True)
            }
        data, ends, size = self._encoded(batch, numbers, corrupted)
        more = (end, rest) < (stop, 0)
        return Part(start.slot, end, entries, places[rows], ends, data, size, rest, more, faulty=True)

    def _deliveries(self, start: Place, stop: int, entries: int) -> _Drawn:
        """Return deliveries from a slot on, of no more slots than a part is likely to hold.

        What is more than a part is kept for the parts that follow.
        """
        drawn, self._drawn = self._drawn, None
        if drawn is None or drawn.entries != entries or not drawn.start <= start.slot < drawn.stop <= stop:
            high = min(stop, start.slot + max(1, int(_MOST_ROWS / self._density)))
            batch, found = self._stream.deliveries(start.slot, high)
            self._density = max(1.0, len(found) / (high - start.slot))
            drawn = _Drawn(start.slot, high, entries, batch, found)
        if len(drawn.found) > _MOST_ROWS:
            self._drawn = drawn
        return drawn

    def _mask(self, batch: pa.RecordBatch) -> NDArray[np.bool_]:
        """Return which rows fulfil the conditions."""
        masks = [condition.mask(batch) for condition in self.selection.where]
        fulfilled: NDArray[np.bool_] = np.logical_and.reduce(masks)
        return fulfilled

    def _with_numbers(
        self,
        batch: pa.RecordBatch,
        numbers: NDArray[np.int64],
        slots: NDArray[np.int64],
        indices: NDArray[np.int64],
    ) -> pa.RecordBatch:
        """Return a batch with event numbers and places, if they were requested."""
        if EVENT_NUMBER.name in self.schema and EVENT_NUMBER.name not in batch.schema.names:
            batch = batch.append_column(EVENT_NUMBER.arrow_field, pa.array(numbers))
        if self.selection.placed:
            batch = batch.append_column(self._place_field, written_places(slots, indices))
        return batch

    def _encoded(
        self, batch: pa.RecordBatch, numbers: NDArray[np.int64], corruptions: Corruptions | None
    ) -> tuple[Any, NDArray[np.int64] | None, int]:
        """Return rows in the format of the selection, where each begins, and their size in bytes.

        Parameters
        ----------
        corruptions : mapping or None
            By row; None where no faults can be.
        """
        if self.selection.format == "arrow":
            if corruptions:
                columns = corrupt_columns(batch, self._event_schema, corruptions)
                if self.selection.placed:
                    columns = columns.add_column(0, self._place_field, batch.column(self._place_field.name))
            else:
                columns = batch.select(list(self.schema.names))
                if corruptions is not None:
                    columns = in_schema(columns, self.arrow_schema(faulty=True))
            return columns, None, batch.num_rows * self._row_bytes
        strings = self._encoder.join(batch, self._attributes(batch, numbers))
        if corruptions:
            strings = corrupt_strings(strings, self._encoder, corruptions, placed=self.selection.placed)
        if self.selection.format == "json":
            data, ends = frame_strings(strings)
            return data, ends, data.nbytes
        return strings.data.data, strings.ends, strings.data.nbytes

    def has_faults(self, start: int, stop: int) -> bool:
        """Return whether faults of the wire can act on what is sent of some slots, `stop` excluded."""
        return self.selection.faults and start < stop and self._stream.has_faults(start, stop)

    def arrow_schema(self, *, faulty: bool) -> pa.Schema:
        """Return the columns of Arrow batches, with or without faults of the wire."""
        schema = faulty_schema(self._event_schema) if faulty else self._event_schema.arrow
        return schema.insert(0, self._place_field) if self.selection.placed else schema

    def _attributes(self, batch: pa.RecordBatch, numbers: NDArray[np.int64]) -> pa.Array | None:
        """Return what stands before the events of a batch: their envelopes, if they have one."""
        if self.selection.envelope is None:
            return None
        return cloud_event_attributes(
            numbers,
            batch.column(EVENT_TIME.name),
            stream=self._stream.id,
            source=self._source,
            before=ROOM if self.selection.format == "json" else "",
        )

    def cut(self, part: Part, start: Place, stop: Place, most: int = WRITE_BYTES) -> Place:
        """Return where to end a write that begins at `start`: it has `most` bytes, or one delivery.

        An Arrow message is cut only for a reader that is not fast, because each holds the strings it needs.
        """
        stop = min(stop, part.end)
        row, last = part.row(start), part.row(stop)
        if part.ends is None:
            fitting = row + most // self._row_bytes if most < WRITE_BYTES else last
        else:
            fitting = int(np.searchsorted(part.ends, part.ends[row] + most, "right")) - 1
        # The row after the one delivery may come after `stop`, if only some events are sent.
        return stop if fitting >= last else min(stop, part.place(max(fitting, row + 1)))

    def wire(self, part: Part, start: Place, stop: Place, missed: int | None = None) -> bytes | memoryview:
        """Return the WebSocket frames from one place to another, both within the part.

        Parameters
        ----------
        missed : int or None
            How many events the reader has skipped just before `start`.
        """
        if self.selection.format == "json":
            frames = part.rows(part.row(start), part.row(stop))
            if missed is not None:
                return frame(TEXT, _missed_json(missed)) + frames
            # A connection keeps what it is given until it is sent: not a whole part for a few events.
            return bytes(frames) if 2 * len(frames) < part.size else frames
        key = (start, stop, missed)
        kept = self._messages.get(key)
        if kept is None:
            kept = self._framed(part, start, stop, missed)
            if len(kept) <= _LARGEST_KEPT:
                self._messages[key] = kept
                if len(self._messages) > _KEPT_MESSAGES:
                    self._messages.popitem(last=False)
        return kept

    def _framed(self, part: Part, start: Place, stop: Place, missed: int | None) -> bytes | memoryview:
        """Return a message of lines or a batch as a frame; nothing if it would be empty."""
        first, last = part.row(start), part.row(stop)
        if first == last and missed is None:
            return b""
        if part.ends is None:
            return frame_in_place(BINARY, _arrow_message(part, first, last, stop, missed), LARGEST_HEADER)
        return frame(TEXT, _lines(part, first, last, missed))

    def messages(self, part: Part, start: Place, stop: Place, missed: int | None = None) -> list[str | bytes]:
        """Return the messages from one place to another, for a server that frames them itself."""
        first, last = part.row(start), part.row(stop)
        if self.selection.format == "json":
            notice: list[str | bytes] = [] if missed is None else [_missed_json(missed).decode()]
            return notice + [_unframed(part.rows(row, row + 1)).decode() for row in range(first, last)]
        if first == last and missed is None:
            return []
        if part.ends is None:
            return [bytes(_arrow_message(part, first, last, stop, missed)[LARGEST_HEADER:])]
        return [bytes(_lines(part, first, last, missed)).decode()]


@dataclass(slots=True)
class _Job:
    """A part that is to be made.

    Attributes
    ----------
    feed : Feed
        Whose part it is.
    urgency, order : int
        How urgent it is, and when it was requested among those as urgent.
    waits : int
        How many parts have been made before it for readers that are behind.
    """

    feed: Feed
    urgency: int
    order: int
    waits: int = 0


class Feeds:
    """All feeds of a stream, the parts that are kept, and the thread that makes them.

    Parameters
    ----------
    stream : Stream
        What is encoded.
    on_made : callable
        Called, on the thread that made it, whenever a part has become available.
    """

    def __init__(self, stream: Stream, on_made: Callable[[], object]) -> None:
        self._stream, self._on_made = stream, on_made
        self._feeds: dict[Selection, tuple[Feed, int]] = {}
        # Notified when the maker may have something to do. All waiters are, though there is one: an exception
        # from a signal amid a notification leaves an old waiter in the list.
        self._lock = threading.Condition()
        self._kept: OrderedDict[_Key, Part | Exception] = OrderedDict()
        self._bytes = 0
        self._jobs: dict[_Key, _Job] = {}  # what is to be made
        self._making: tuple[_Key, _Job] | None = None
        self.tables = Tables()  # for the thread that makes parts
        self._order = itertools.count()
        # Parts that their readers have not fetched yet, and until when they are kept for them.
        self._unfetched: dict[_Key, float] = {}
        self._maker: threading.Thread | None = None
        self._freed = False  # whether a feed has been closed since memory was given back
        self._closed = False

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            maker, self._maker, self._closed = self._maker, None, True
            self._lock.notify_all()
        if maker is not None:
            maker.join()

    @property
    def working(self) -> bool:
        """Whether the thread runs, or has not been needed yet."""
        maker = self._maker
        return not self._closed and (maker is None or maker.is_alive())

    def open(self, selection: Selection) -> Feed:
        """Return the feed of a selection, the same for all who use it; each must `release` it."""
        with self._lock:
            feed, users = self._feeds.get(selection) or (Feed(self, self._stream, selection), 0)
            self._feeds[selection] = feed, users + 1
            return feed

    def release(self, feed: Feed) -> None:
        """Note that one user of a feed has left."""
        with self._lock:
            _, users = self._feeds[feed.selection]
            if users > 1:
                self._feeds[feed.selection] = feed, users - 1
                return
            del self._feeds[feed.selection]
            for key in [key for key in self._kept if key[0] == feed.selection]:
                self._forget(key)
            for key in [key for key in self._jobs if key[0] == feed.selection]:
                del self._jobs[key]
            self._freed = True
            self._lock.notify_all()

    def leave(self, feed: Feed, number: int) -> None:
        """Note that a reader does not wait any more for the part that holds an event."""
        with self._lock:
            for key in [key for key in self._unfetched if key[0] == feed.selection]:
                if key[1] <= number < key[2]:
                    del self._unfetched[key]
            self._lock.notify_all()

    def get(self, feed: Feed, start: Place, stop: int, number: int, urgency: int) -> Part | None:
        """Return a part if it is there; else request it, unless it is requested already.

        Parameters
        ----------
        start : Place
            Where it begins.
        stop : int
            The slot before which it ends, or earlier if there are very many deliveries.
        number : int
            The slot that is wanted of it; what comes later may be wrong, see `Feed.settled`.
        urgency : int
            `_LIVE` or `_PAST`, and then `on_made` is called; or `_LATER`.

        Raises
        ------
        Exception
            What went wrong when it was made.
        """
        key = (feed.selection, start.slot, stop, start.index)
        with self._lock:
            if urgency != _LATER and self._unfetched.pop(key, None) is not None:
                self._lock.notify_all()
            part = self._kept.get(key)
            if isinstance(part, Exception):
                self._forget(key)  # the next request makes it again
                raise part
            if part is not None and self._is_valid(part, stop, number):
                self._kept.move_to_end(key)
                return part
            if part is not None:
                self._forget(key)
            self._request(feed, key, urgency)
            if self._maker is None and not self._closed:
                # Not a pool: Python ends those before a program has closed its connections.
                self._maker = threading.Thread(target=self._run, name="logistream-maker", daemon=True)
                self._maker.start()
        return None

    def _run(self) -> None:
        """Make parts, one after the other: more threads would only take the interpreter from each other."""
        while (job := self._next_job()) is not None:
            self._make(*job)

    def _request(self, feed: Feed, key: _Key, urgency: int) -> None:
        """Have a part made, unless it is requested already and at least as urgently."""
        job = self._making[1] if self._making is not None and self._making[0] == key else self._jobs.get(key)
        if job is None:
            self._jobs[key] = _Job(feed, urgency, next(self._order))
        elif urgency < job.urgency:
            job.urgency = urgency
        else:
            return
        self._lock.notify_all()

    def _next_job(self) -> tuple[_Key, _Job] | None:
        """Wait for something to make; None if this is closed."""
        with self._lock:
            while not self._closed:
                key = self._most_urgent()
                if key is not None:
                    self._making = key, self._jobs.pop(key)
                    return self._making
                if self._freed:
                    self._freed = False
                    pa.default_memory_pool().release_unused()  # which Arrow keeps otherwise
                self._lock.wait(self._until_unfetched() if self._jobs else None)
            return None

    def _until_unfetched(self) -> float:
        """Return the seconds until parts that nobody fetches hold back no others."""
        return max(0.0, min(self._unfetched.values()) - time.monotonic())

    def _most_urgent(self) -> _Key | None:
        """Return what to make next; None if nothing is requested, or enough is made that nobody has fetched.

        Of readers of the past that are near each other, those behind come first. So they meet, and from then
        on each part is made once for all of them.
        """
        if not self._jobs:
            return None
        first, job = min(self._jobs.items(), key=lambda item: (item[1].urgency, item[1].order))
        if job.urgency == _LIVE:
            return first
        now = time.monotonic()
        for key in [key for key, until in self._unfetched.items() if until <= now]:
            del self._unfetched[key]
        if len(self._unfetched) >= _UNFETCHED:
            return None
        if job.urgency == _LATER or job.waits >= _MOST_WAITS:
            return first
        near = (
            key
            for key, other in self._jobs.items()
            if other.urgency == _PAST and other.feed is job.feed and first[1] - _NEAR <= key[1] <= first[1]
        )
        behind = min(near, key=lambda key: key[1:])
        job.waits += behind != first
        return behind

    def _is_valid(self, part: Part, stop: int, number: int) -> bool:
        """Return whether a part still holds what it should, in spite of entries since."""
        entries = self._stream.timeline.entries
        if part.entries == len(entries):
            return True
        changed = entries[part.entries].first
        return changed >= stop or number < min(changed, part.stop + (part.rest > 0))

    def _make(self, key: _Key, job: _Job) -> None:
        made: Part | Exception | None
        try:
            made = job.feed.make(Place(key[1], key[3]), key[2])
        except StreamError:  # a pause began meanwhile: the next request is for a shorter part
            made = None
        except Exception as error:
            logger.exception("events %d to %d cannot be encoded", key[1], key[2])
            made = error
        with self._lock:
            self._making = None
            if made is not None and key[0] in self._feeds:
                if job.urgency == _PAST:
                    self._unfetched[key] = time.monotonic() + _FETCHED_WITHIN
                self._kept[key] = made
                self._bytes += made.size if isinstance(made, Part) else 0
                self._make_room()
        if job.urgency != _LATER:
            self._on_made()

    def _make_room(self) -> None:
        """Remove the parts used longest ago, those of the past first, since live readers need the newest.

        Those that readers wait for are kept: they would be made again and again.
        """
        if self._bytes > _KEPT_BYTES and len(self._kept) > _KEPT_AT_LEAST:
            now = self._stream.next_number()
            removable = [key for key in self._kept if key not in self._unfetched]
            for key in sorted(removable, key=lambda key: key[2] > now):
                if self._bytes <= _KEPT_BYTES or len(self._kept) <= _KEPT_AT_LEAST:
                    return
                self._forget(key)

    def _forget(self, key: _Key) -> None:
        part = self._kept.pop(key)
        self._unfetched.pop(key, None)
        self._bytes -= part.size if isinstance(part, Part) else 0


def _encoder(schema: Schema, selection: Selection, tables: Tables) -> Encoder:
    """Return what writes events in a format: objects with room for a frame header, or lines."""
    if selection.format == "csv":
        return CsvEncoder(schema, tables=tables)
    enveloped = selection.envelope is not None  # what stands before them is not the same for all
    if selection.format == "json":
        before, after = ("" if enveloped else ROOM), ("}" if enveloped else "")
        return Encoder(schema, before=before, after=after, tables=tables)
    return Encoder(schema, after="}\n" if enveloped else "\n", tables=tables)


def _arrow_message(part: Part, first: int, last: int, stop: Place, missed: int | None) -> memoryview:
    """Return rows `first` to `last` of a part as a complete Arrow IPC stream, behind room for a header."""
    batch = part.data.slice(first, last - first)
    if len(batch) < _FULL_DICTIONARIES:
        batch = _compact(batch)
    metadata: dict[str, object] = {
        "first_event_number": min(part.place(first), stop).slot,
        "next_event_number": stop.slot,
    }
    if part.faulty:
        metadata["next_delivery"] = stop
    if missed is not None:
        metadata["missed_events"] = missed
    schema = batch.schema.with_metadata({name: str(value) for name, value in metadata.items()})
    sink = pa.BufferOutputStream()
    sink.write(bytes(LARGEST_HEADER))
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return memoryview(sink.getvalue()).cast("B")


def in_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch without faults of the wire with the columns of one that can have them, if it has not."""
    missing = len(schema) - batch.num_columns
    arrays = [*batch.columns, *(pa.nulls(batch.num_rows, pa.string()) for _ in range(missing))]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _lines(part: Part, first: int, last: int, missed: int | None) -> bytes | memoryview:
    """Return rows `first` to `last` of a part as lines, after one with the number of those missed."""
    lines = part.rows(first, last)
    return lines if missed is None else _missed_json(missed) + b"\n" + lines


def _compact(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose dictionaries hold only the strings that occur."""
    arrays = [
        column.dictionary_decode().dictionary_encode() if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def _missed_json(missed: int) -> bytes:
    return b'{"missed_events":%d}' % missed


def _unframed(frame: memoryview) -> bytes:
    """Return the payload of one of our frames."""
    header = {126: 4, 127: 10}.get(frame[1], 2)
    return bytes(frame[header:])
