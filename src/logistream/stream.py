"""One live stream: a model, a seed and a timeline, turned into the texts that every reader gets.

No sockets here. The stream is a function of the event number, so readers hold nothing but the number of
their next event, and the text of an event is made once however many read it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

from logistream.codec import encode
from logistream.errors import RequestError
from logistream.sampling import Sampler
from logistream.timeline import Entry, Timeline

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from logistream.model import Model

__all__ = ["MAX_RATE", "MIN_RATE", "Stream", "rfc3339", "wall_clock"]

MIN_RATE = 0.001
"""Slowest rate that can be asked for, in events per second."""

MAX_RATE = 1_000_000
"""Fastest rate that can be asked for, in events per second."""

# Texts are made ahead in aligned chunks: small enough that a dragged slider costs a few milliseconds for
# each position, large enough that the cost of a call is spread over many events.
_CHUNK = 512
_CACHED_CHUNKS = 64


def wall_clock() -> int:
    """Return the time in microseconds since the Unix epoch, UTC."""
    return time.time_ns() // 1000


def rfc3339(moment: int) -> str:
    """Return microseconds since the Unix epoch as RFC 3339 text in UTC with microseconds and `Z`."""
    seconds, micros = divmod(moment, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06}Z"


class Stream:
    """The events of one model and seed on one timeline; safe to use from any thread.

    Parameters
    ----------
    model : Model
        What the events are drawn from.
    seed : int
        Which of the model's streams.
    rate : float
        Events per second, from 0.001 to 1,000,000; ignored if a timeline is given.
    timeline : Timeline or None
        When the events happen; None begins now.
    clock : callable
        Returns the time in microseconds since the Unix epoch.

    Raises
    ------
    RequestError
        For a rate or seed that is not allowed.
    """

    def __init__(
        self,
        model: Model,
        *,
        seed: int = 0,
        rate: float = 2.0,
        paused: bool = False,
        timeline: Timeline | None = None,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        self.model = model
        self.seed = seed
        self._clock = clock
        self._latest = 0
        self._sampler = Sampler(model, seed)
        self._clock_lock = threading.Lock()
        self._lock = threading.Lock()  # guards the timeline against the chunks that were made from it
        self._chunks: OrderedDict[int, tuple[int, list[bytes]]] = OrderedDict()
        self._listeners_lock = threading.Lock()
        self._listeners: set[Callable[[], object]] = set()
        if timeline is None:
            timeline = Timeline.begin(self.now(), rate=_checked_rate(rate), paused=_checked_paused(paused))
        self.timeline = timeline

    def __repr__(self) -> str:
        return f"<Stream of {self.model.name!r}, seed {self.seed}, {self.timeline.last}>"

    def restarted(self) -> Self:
        """Return a new stream with the same settings that begins now, with event 0."""
        return type(self)(self.model, seed=self.seed, rate=self.rate, paused=self.paused, clock=self._clock)

    @property
    def rate(self) -> float:
        """Events per second in force."""
        return self.timeline.last.rate

    @property
    def paused(self) -> bool:
        """Whether no events happen for now."""
        return self.timeline.last.paused

    @property
    def scenario(self) -> str | None:
        """Name of the what-if change in force."""
        return self.timeline.last.scenario

    def now(self) -> int:
        """Return the stream's time in microseconds since the Unix epoch; it never runs backwards."""
        with self._clock_lock:
            self._latest = max(self._latest, self._clock())
            return self._latest

    def next_number(self) -> int:
        """Return the number of the next event: how many have happened since event 0."""
        return self.timeline.count(self.now())

    def wait(self, number: int) -> float | None:
        """Return the seconds until an event happens, 0 if it has; None while a pause holds it back."""
        last = self.timeline.last  # one look, since another thread may change the timeline meanwhile
        if number < last.first:
            return 0.0
        return None if last.paused else max(0, last.time(number) - self.now()) / 1e6

    @property
    def state(self) -> dict[str, Any]:
        """What is in force: rate, paused, scenario, seed, next event number, started, model name."""
        last = self.timeline.last
        return {
            "rate": last.rate,
            "paused": last.paused,
            "scenario": last.scenario,
            "seed": self.seed,
            "next_event_number": self.next_number(),
            "started": rfc3339(self.timeline.entries[0].since),
            "model": self.model.name,
        }

    def change(
        self, *, rate: float | None = None, paused: bool | None = None, scenario: str | None = None
    ) -> Entry:
        """Set rate, pause or scenario from now on and return the entry that is then in force.

        Returns
        -------
        Entry
            Its `first` is the event number from which the settings hold.

        Raises
        ------
        RequestError
            For a value that is not allowed; nothing is changed then.
        """
        if rate is not None:
            rate = _checked_rate(rate)
        if paused is not None:
            paused = _checked_paused(paused)
        if scenario is not None:
            raise RequestError(f"no scenario {scenario!r}: this model has none, leave it null")
        with self._lock:
            entry = self.timeline.change(self.now(), rate=rate, paused=paused)
            for number in [n for n in self._chunks if (n + 1) * _CHUNK > entry.first]:
                del self._chunks[number]
        with self._listeners_lock:
            for listener in self._listeners:
                listener()
        return entry

    def subscribe(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Have `listener` called after every change, from whichever thread makes it.

        Returns
        -------
        callable
            Ends the subscription; the listener is not running any more when it returns.
        """
        with self._listeners_lock:
            self._listeners.add(listener)

        def unsubscribe() -> None:
            with self._listeners_lock:
                self._listeners.discard(listener)

        return unsubscribe

    def batch(self, start: int, stop: int) -> pa.RecordBatch:
        """Return events `start` to `stop` (exclusive) as columns of `model.full_schema`.

        Raises
        ------
        StreamError
            If the range is before the stream or held back by a pause.
        """
        return self._sampler.batch(start, stop, self.timeline.times(start, stop))

    def encoded(self, start: int, stop: int) -> list[bytes]:
        """Return events `start` to `stop` (exclusive) as JSON texts, each made once for all readers.

        Numbers that have not happened yet are encoded as they will be unless the timeline changes.

        Raises
        ------
        StreamError
            If the range is before the stream or held back by a pause.
        """
        self.timeline.times(start, start)  # raises if that is before the stream
        texts: list[bytes] = []
        while start < stop:
            number = start // _CHUNK
            end = min(stop, (number + 1) * _CHUNK)
            first, chunk = self._chunk(number)
            piece = chunk[start - first : end - first]
            if len(piece) < end - start:
                self.timeline.times(start, end)  # raises if held back by a pause; else that has just ended
                continue
            texts += piece
            start = end
        return texts

    def _chunk(self, number: int) -> tuple[int, list[bytes]]:
        """Return the first event number and the texts of a chunk, from the cache or made now."""
        with self._lock:
            if number in self._chunks:
                self._chunks.move_to_end(number)
                return self._chunks[number]
            last = self.timeline.last
            first = max(number * _CHUNK, self.timeline.entries[0].first)
            stop = (number + 1) * _CHUNK
            if last.paused:  # the rest has no time yet; on resuming this chunk is made again
                stop = min(stop, last.first)
            made = first, encode(self.batch(first, stop), self.model.event_schema)
            self._chunks[number] = made
            if len(self._chunks) > _CACHED_CHUNKS:
                self._chunks.popitem(last=False)
            return made


def _checked_rate(rate: object) -> float:
    if isinstance(rate, bool) or not isinstance(rate, Real) or not math.isfinite(rate):
        raise RequestError(f"rate must be a number of events per second, not {rate!r}")
    if not MIN_RATE <= float(rate) <= MAX_RATE:
        raise RequestError(
            f"rate must be from {MIN_RATE} to {MAX_RATE:,} events per second, not {rate!r}; "
            f"to stop the stream for a while, pause it"
        )
    return float(rate)


def _checked_paused(paused: object) -> bool:
    if not isinstance(paused, bool):
        raise RequestError(f"paused must be true or false, not {paused!r}")
    return paused
