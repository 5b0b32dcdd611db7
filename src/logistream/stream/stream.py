"""One live stream: a model, a seed and a timeline, without sockets or encodings.

The stream is a function of the event number; the clock only decides how far it has run.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from logistream.dataco import named_scenarios
from logistream.errors import LogistreamError, NotYetError, RequestError
from logistream.model.mixture import Mixture
from logistream.model.sampling import Sampler
from logistream.model.scenario import Scenario, read_scenarios
from logistream.stream.deliveries import Wire
from logistream.stream.faults import read_faults
from logistream.stream.query import Timestamp
from logistream.stream.timeline import Timeline, first_entry
from logistream.stream.timeline_file import LEAD_MICROS
from logistream.times import rfc3339, wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from logistream.model.model import Model
    from logistream.model.scenario import Scenarios
    from logistream.stream.arrivals import Arrivals
    from logistream.stream.deliveries import Deliveries
    from logistream.stream.faults import Fault, Faults
    from logistream.stream.query import Start
    from logistream.stream.timeline import Entry

__all__ = ["Stream", "strengths_of"]


_AHEAD = LEAD_MICROS // 2
"""Microseconds for which the timeline must be certain, before it is read again."""

_CLOCK_SLACK = 100_000
"""Microseconds by which the clock may be behind the stream's time before that is reported."""

_KEPT_MIXTURES = 4

_TOLERANCE = 5_000_000
"""Microseconds: an event that will happen within this time can be requested, and is waited for. Clocks and
knowledge of servers that share a timeline differ by less."""


class Stream:
    """The events of one model and seed on one timeline; safe to use from any thread.

    Parameters
    ----------
    model : Model
        What the events are drawn from.
    timeline : Timeline or None
        When the events happen; None begins now, with 2 events a second.
    seed : int
        Which of the model's streams.
    clock : callable
        Returns the time in microseconds since the Unix epoch.

    Raises
    ------
    RequestError
        For a seed that is not allowed.
    """

    def __init__(
        self,
        model: Model,
        timeline: Timeline | None = None,
        *,
        seed: int = 0,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        self.model = model
        self.seed = seed
        self._clock = clock
        self._latest = 0
        self._sampler = Sampler(model, seed, live=True)
        self._mixtures: dict[tuple[Scenario, ...], Mixture] = {}
        self._mixtures_lock = threading.Lock()
        self._wire = Wire(model, seed, self._batch)
        self._clock_lock = threading.RLock()
        self._listeners_lock = threading.Lock()
        self._listeners: set[Callable[[], object]] = set()
        self._unreadable = False
        self.timeline = Timeline([first_entry(self.now())]) if timeline is None else timeline
        self._latest = max(self._latest, self.timeline.latest)
        self.id = _identity(model, seed, self.timeline.arrivals, self.timeline.entries[0])

    def __repr__(self) -> str:
        return f"<Stream of {self.model.name!r}, seed {self.seed}, {self.timeline.last}>"

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
        """The names of the scenarios in force; None for none."""
        return self.timeline.last.scenario

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """The scenarios in force."""
        return self.timeline.last.scenarios

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What goes wrong with the delivery of the events that are still to come."""
        return self.timeline.last.faults

    def now(self) -> int:
        """Return the stream's time in microseconds since the Unix epoch; it never runs backwards."""
        with self._clock_lock:
            self._latest = max(self._latest, self._clock())
            return self._latest

    @property
    def clock_behind(self) -> float:
        """Seconds by which the clock is behind the stream's time, or behind what other servers may deliver.

        The first is so if the clock was set back, and no event happens then; the second if the clocks of
        servers that share a timeline differ.
        """
        return self.clock_state()[0]

    @property
    def waiting_for_clock(self) -> bool:
        """Whether no event can happen because the clock is behind the time that this stream has reached."""
        return self.clock_state()[1]

    def clock_state(self) -> tuple[float, bool]:
        """Return `clock_behind` and `waiting_for_clock` by one reading of the clock, which may be set."""
        latest, reached = self._latest, self.timeline.reached  # before the clock is read
        clock = self._clock()
        return max(0, latest - clock, reached - clock) / 1e6, latest - clock > _CLOCK_SLACK

    @property
    def status(self) -> Literal["running", "paused", "waiting for the clock"]:
        """Whether events happen."""
        return "paused" if self.paused else "waiting for the clock" if self.waiting_for_clock else "running"

    def next_number(self) -> int:
        """Return the number of the next event: how many have happened for certain since event 0."""
        return self.timeline.count(self._known())

    def _known(self) -> int:
        """Return the time up to which the timeline is certain, at most now; read it if need be."""
        now = self.now()
        if self.timeline.known_until(now + _AHEAD) < now + _AHEAD and not self._unreadable:
            with contextlib.suppress(LogistreamError):  # whoever calls `refresh` reports it
                self.refresh()
        return self.timeline.known_until(now)

    def wait(self, number: int) -> float | None:
        """Return the seconds until an event happens, 0 if it has; None while a pause holds it back."""
        micros = self.timeline.wait(number, self.now())
        return None if micros is None else micros / 1e6

    def age(self, number: int) -> int:
        """Return how long ago an event happened, in microseconds; 0 if it has not."""
        now = self.now()
        return max(0, now - self.timeline.time(number)) if number < self.timeline.count(now) else 0

    def resolve(self, start: Start) -> int:
        """Return the event number at which a reader begins.

        Raises
        ------
        RequestError
            If it is before the first event.
        NotYetError
            If it has not happened and will not within seconds.
        """
        first = self.timeline.entries[0].first
        if start == "earliest":
            return first
        if start == "latest":
            return self.next_number()
        if isinstance(start, Timestamp):
            if start.micros > self.now() + _TOLERANCE:
                raise NotYetError(f"an event after {rfc3339(start.micros)}", self.next_number() - 1)
            number = self.timeline.count(start.micros)
        else:
            number = start
        if number < first:
            raise RequestError(f"event {number} is before the stream, which begins with {first}")
        if number > self.next_number():
            self.refresh()
            if number > self.timeline.count(self.now() + _TOLERANCE):
                raise NotYetError(f"event {number}", self.next_number() - 1)
        return number

    def resolve_stop(self, stop: Start | None) -> int:
        """Return the event number before which a finished range ends; None is after the newest event.

        A time includes the events at that very time. Answers never change: what is still to come is refused.

        Raises
        ------
        NotYetError
            If the event before it, or the time, has not come for certain.
        """
        if stop == "earliest":
            return self.timeline.entries[0].first
        newest = self.next_number()
        if stop is None or stop == "latest":
            return newest
        if isinstance(stop, Timestamp):
            if stop.micros > self._known():
                raise NotYetError(f"a range until {rfc3339(stop.micros)}", newest - 1)
            return self.timeline.count(stop.micros)
        if stop > newest:
            raise NotYetError(f"event {stop - 1}", newest - 1)
        return stop

    @property
    def state(self) -> dict[str, Any]:
        """What is in force: rate, paused, scenario, faults, seed, next event number, started, model name."""
        number = self.next_number()  # first: it may read what another process has changed
        last = self.timeline.last
        return {
            "rate": last.rate,
            "paused": last.paused,
            "scenario": last.scenario,
            "scenarios": [scenario.to_json() for scenario in last.scenarios],
            "faults": [fault.to_json() for fault in last.faults],
            "seed": self.seed,
            "next_event_number": number,
            "started": rfc3339(self.timeline.entries[0].since),
            "model": self.model.name,
        }

    def change(
        self,
        *,
        rate: float | None = None,
        paused: bool | None = None,
        scenarios: Scenarios | None = None,
        faults: Faults | None = None,
    ) -> Entry:
        """Set rate, pause, scenarios or faults from now on and return the entry that is then in force.

        Parameters
        ----------
        rate : float, optional
            Events per second.
        paused : bool, optional
            Whether no events happen.
        scenarios : Scenario, mapping, or iterable of these, optional
            The scenarios that are in force; an empty list ends them.
        faults : Fault, mapping, or iterable of these, optional
            What goes wrong with the delivery of the events from now on; an empty list ends that.

        Returns
        -------
        Entry
            Its `first` is the event number from which the settings hold.

        Raises
        ------
        RequestError
            For a value that is not allowed; nothing is changed then.
        StreamError
            If the timeline is kept in a file that cannot be written.
        """
        wanted = None if scenarios is None else read_scenarios(scenarios)
        if wanted:
            self._mixture(wanted)  # what cannot be exact is refused before anything is changed
        wrong = None if faults is None else read_faults(faults, self.model)
        # No other thread may read the clock meanwhile: an event could be sent that the change then moves. A
        # shared timeline ensures that itself (`timeline_file` says how), and may have to wait for a lock.
        with contextlib.nullcontext() if self.timeline.shared else self._clock_lock:
            entry = self.timeline.change(self.now(), rate=rate, paused=paused, scenarios=wanted, faults=wrong)
        self._notify()
        return entry

    @functools.cached_property
    def known_scenarios(self) -> tuple[tuple[Scenario, str], ...]:
        """The named scenarios that this model can be under, each with a sentence what it does."""
        known = []
        for form, sentence in named_scenarios(self.model.schema):
            scenario = Scenario.from_json(form)
            try:
                Mixture(self.model, (scenario,), self.seed, live=True)
            except RequestError:  # a model of other orders may lack a region or a category
                continue
            known.append((scenario, sentence))
        return tuple(known)

    def refresh(self) -> bool:
        """Take in what other processes have added to a shared timeline.

        Returns
        -------
        bool
            False if another process is writing: it should be called again soon.

        Raises
        ------
        DataError, StreamError
            If the timeline is damaged or cannot be read; no event happens until that succeeds again.
        """
        before = self.timeline.entries
        self._unreadable = True
        read = self.timeline.refresh()
        self._unreadable = False
        if self.timeline.entries is not before:
            self._notify()
        return read

    def _notify(self) -> None:
        with self._listeners_lock:
            for listener in self._listeners:
                listener()

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
        return self._batch(self.timeline, start, stop)

    def _batch(self, timeline: Timeline, start: int, stop: int) -> pa.RecordBatch:
        times = timeline.times(start, stop)
        parts = []
        for low, high, scenarios, begun in timeline.scenarios(start, stop):
            here = times[low - start : high - start]
            if not scenarios:
                parts.append(self._sampler.batch(low, high, here))
                continue
            mixture = self._mixture(scenarios)
            strengths = strengths_of(scenarios, begun, low, here)
            parts.append(mixture.batch(low, high, strengths, here))
        if not parts:
            return self._sampler.batch(start, stop, times)
        return parts[0] if len(parts) == 1 else pa.concat_batches(parts)

    def has_faults(self, start: int, stop: int) -> bool:
        """Return whether what is delivered in slots `start` to `stop` (exclusive) can have faults.

        If not, events `start` to `stop` are delivered, one in each slot, as they happened.
        """
        return self._wire.has_faults(self.timeline.snapshot(), start, stop)

    def deliveries(self, start: int, stop: int) -> tuple[pa.RecordBatch, Deliveries]:
        """Return what is delivered in slots `start` to `stop` (exclusive); slot s is the moment of event s.

        Returns
        -------
        pyarrow.RecordBatch of m rows
            The events as they happened, with the columns of `model.full_schema`.
        Deliveries
            When each of these rows is delivered, and what is corrupted.

        Raises
        ------
        StreamError
            If the range is before the stream or held back by a pause.
        """
        return self._wire.deliveries(self.timeline.snapshot(), start, stop)

    def truth(self, start: int, stop: int) -> pd.DataFrame:
        """Return what is true of events `start` to `stop` (exclusive); see `Model.truth`.

        The column `delivery` holds a dict of what is done to the delivery of each: empty for one that is
        delivered as it happened and when it does; `{"dropped": True}`; or `places`, a list of where its
        deliveries come, copy by copy, such as `["40.1", "77.0"]`, None for one that is still to come. If some
        there is `corrupt` beside it, a list with what JSON has of each, such as `{"null": ["Sales"]}`, None
        for one that is whole; `cut` is the bytes that are left of the published JSON object.

        Raises
        ------
        RequestError
            If the probability of a late delivery cannot be exact.
        StreamError
            If the range is before the stream or held back by a pause.
        """
        import pandas as pd  # a server that only streams does not need it

        from logistream.model.truth import truth

        known = self.next_number()
        timeline = self.timeline.snapshot()
        times = timeline.times(start, stop)
        parts = []
        stretches = timeline.scenarios(start, stop) if start < stop else [(start, stop, (), ())]
        for low, high, scenarios, begun in stretches:
            here = times[low - start : high - start]
            strengths = strengths_of(scenarios, begun, low, here)
            parts.append(truth(self._mixture(scenarios), low, high, strengths, times=here))
        frame = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
        done = self._wire.truth(timeline, start, stop, known)
        return frame.assign(delivery=pd.Series(done, index=frame.index, dtype="object"))

    def _mixture(self, scenarios: tuple[Scenario, ...]) -> Mixture:
        """Return what draws events under scenarios; that of the last few is kept."""
        with self._mixtures_lock:
            if scenarios not in self._mixtures:
                self._mixtures[scenarios] = Mixture(self.model, scenarios, self.seed, live=True)
                while len(self._mixtures) > _KEPT_MIXTURES:
                    del self._mixtures[next(iter(self._mixtures))]
            return self._mixtures[scenarios]


def strengths_of(
    scenarios: tuple[Scenario, ...], begun: tuple[Entry, ...], start: int, times: np.ndarray
) -> np.ndarray:
    """Return how strong each scenario is at the events from `start` on, (n_scenarios, n_events)."""
    strengths = np.ones((len(scenarios), len(times)))
    for place, (scenario, entry) in enumerate(zip(scenarios, begun, strict=True)):
        passed: np.ndarray = np.arange(start, start + len(times)) - entry.first
        if scenario.profile.unit == "seconds":
            passed = (times - entry.since) / 1e6
        strengths[place] = scenario.profile.strength(passed)
    return strengths


def _identity(model: Model, seed: int, arrivals: Arrivals, entry: Entry) -> str:
    """Return 16 hexadecimal digits that identify a stream: equal only if all its events can be equal."""
    described = json.dumps([model.checksum, seed, arrivals.kind, entry.to_json()], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]
