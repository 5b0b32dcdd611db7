"""`RollingFrame`: the newest events of a stream as a pandas DataFrame, bounded by rows and by time."""

from __future__ import annotations

import html
import threading
from typing import TYPE_CHECKING, overload

import pandas as pd
import pyarrow as pa

from logistream.client.follower import Follower
from logistream.client.subscription import Subscription, with_read_options
from logistream.dataco import EVENT
from logistream.errors import RequestError, StreamError
from logistream.frame.convert import schema_of, to_batches, to_pandas
from logistream.frame.window import NO_TIME, Window
from logistream.schema import EVENT_TIME
from logistream.times import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import timedelta
    from typing import Unpack

    from logistream.client.subscription import ReadOptions, Source
    from logistream.frame.convert import Events
    from logistream.schema import Schema

__all__ = ["RollingFrame"]


_RATE_SECONDS = 5.0  # of event time, over which `rate` is taken
_ANSWER_SECONDS = 1.0  # that `follow` waits for a refusal


class RollingFrame:
    """The newest events of a stream, as a DataFrame at any time.

    An append costs the same whatever the window holds; `df` makes the DataFrame when asked and keeps it until
    the next append. All methods may be called from any thread.

    Parameters
    ----------
    rows : int or None, default=100_000
        Keep at most so many events; None for any number.
    window : str, timedelta or None, default="5min"
        Keep events whose `event_time` is at most so much before the newest one; None for any age.
    schema : Schema, optional
        The columns. By default `follow` takes those of the stream, and `append` expects the published event.

    Examples
    --------
    >>> from logistream.schema import Column, Schema
    >>> frame = RollingFrame(rows=2, window=None, schema=Schema((Column("Market", "category"),)))
    >>> frame.append([{"Market": "LATAM"}, {"Market": "Europe"}, '{"Market":"LATAM"}'])
    >>> frame.df["Market"].tolist()
    ['Europe', 'LATAM']
    """

    def __init__(
        self,
        rows: int | None = 100_000,
        window: str | timedelta | None = "5min",
        *,
        schema: Schema | None = None,
    ) -> None:
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
            raise RequestError(f"rows must be a whole number from 1, or None for no bound; got {rows!r}")
        self._rows, self._span = rows, None if window is None else _micros("window", window)
        self._window = None if window is None else str(window)
        self._lock = threading.Condition()
        self._store: Window | None = None if schema is None else self._new_store(schema)
        self._appended = 0
        self._ready: tuple[int, pd.DataFrame] | None = None
        self._followers: dict[str, Follower] = {}

    def __repr__(self) -> str:
        window = f"RollingFrame(rows={self._rows}, window={self._window!r})"
        newest = self.newest
        if newest is None:
            return f"<{window}: {len(self):,} events>"
        when = f"{newest:%Y-%m-%d %H:%M:%S} UTC"
        rate = self.rate
        return (
            f"<{window}: {len(self):,} events, newest {when}, {rate:,.{0 if rate >= 100 else 2}f} events/s>"
        )

    def __len__(self) -> int:
        with self._lock:
            return 0 if self._store is None else len(self._store)

    @property
    def schema(self) -> Schema:
        """The columns; those of the published event until others are known."""
        store = self._store
        return EVENT if store is None else store.schema

    @property
    def appended(self) -> int:
        """How many events were ever appended."""
        return self._appended

    @property
    def newest(self) -> pd.Timestamp | None:
        """The newest event time (UTC), None before the first event."""
        store = self._store
        if store is None or store.newest == NO_TIME:
            return None
        return pd.Timestamp(store.newest, unit="us", tz="UTC")

    @property
    def rate(self) -> float:
        """Events per second of event time, over the 5 s before the newest event, or the last two."""
        with self._lock:
            if self._store is None:
                return 0.0
            times = self._store.recent_times(int(_RATE_SECONDS * 1e6))
        span = int(times[-1] - times[0]) if len(times) > 1 else 0
        return (len(times) - 1) / span * 1e6 if span else 0.0

    @property
    def df(self) -> pd.DataFrame:
        """The window as a DataFrame of n rows in order of arrival; later appends do not change it.

        Strings are `category` (categories sorted), times `datetime64[us, UTC]`, whole numbers `int64`, others
        `float64`; nullable whole numbers and booleans `Int64` and `boolean`.
        """
        with self._lock:
            version = self._appended
            if self._ready is not None and self._ready[0] == version:
                return self._ready[1].copy(deep=False)
            cut = None if self._store is None else self._store.cut()
        made = to_pandas(cut if cut is not None else Window(EVENT, None, None).cut())
        with self._lock:
            if cut is not None:
                self._ready = (version, made)
        return made.copy(deep=False)  # pandas copies on write: changes stay with the caller

    def tail(self, count: int = 5) -> pd.DataFrame:
        """Return the newest `count` events as a DataFrame, without the cost of `df`."""
        with self._lock:
            store = self._store if self._store is not None else Window(EVENT, None, None)
            cut = store.cut(None if store.ragged else max(0, count))
        return to_pandas(cut).tail(max(0, count))

    def head(self, count: int = 5) -> pd.DataFrame:
        """Return the oldest `count` events of the window as a DataFrame."""
        return self.df.head(max(0, count))

    def last(self, span: str | timedelta) -> pd.DataFrame:
        """Return the events of the last `span`, such as `"1min"`, before the newest one."""
        micros, df = _micros("span", span), self.df
        times = df[self.schema[EVENT_TIME.name].name]  # explains the absence of times
        recent: pd.DataFrame = df[times >= times.max() - pd.Timedelta(micros, "us")].reset_index(drop=True)
        return recent

    @property
    def columns(self) -> pd.Index[str]:
        """Names of the columns, as `df.columns`."""
        return pd.Index(self.schema.names)

    @overload
    def __getitem__(self, columns: str) -> pd.Series: ...
    @overload
    def __getitem__(self, columns: list[str]) -> pd.DataFrame: ...
    def __getitem__(self, columns: str | list[str]) -> pd.Series | pd.DataFrame:
        """Return a column as a Series, or some columns as a DataFrame; cheaper than `df`."""
        if isinstance(columns, str):
            return self.since(0, [columns])[0][columns]
        if not isinstance(columns, list):
            raise RequestError(f"frame[...] takes the name of a column or a list of names, not {columns!r}")
        return self.since(0, columns)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.schema.names)  # as a DataFrame does

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.schema.names)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Give the window to any library that reads Arrow: `pyarrow.table(frame)`, polars, DuckDB."""
        table = pa.Table.from_pandas(self.df, schema=self.schema.arrow, preserve_index=False)
        return table.__arrow_c_stream__(requested_schema)

    def _repr_html_(self) -> str:
        most = pd.get_option("display.max_columns")
        newest = self.tail().to_html(index=False, max_cols=most, border=0) if len(self) else ""
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{newest}"

    def since(self, position: int, columns: Iterable[str] | None = None) -> tuple[pd.DataFrame, int]:
        """Return what is new, for callers who update figures of their own.

        Parameters
        ----------
        position : int
            What the last call returned; 0 at first.
        columns : iterable of str, optional
            Only these columns, in this order; all by default.

        Returns
        -------
        DataFrame
            The events appended after `position` that the frame still holds.
        int
            The position for the next call: `appended` now.
        """
        with self._lock:
            store = self._store if self._store is not None else Window(EVENT, None, None)
            now = self._appended
            cut = store.cut(max(0, now - position))
        return to_pandas(cut, columns), now

    @property
    def followers(self) -> tuple[Follower, ...]:
        """The followers of this frame, running or ended, the newest last."""
        with self._lock:
            return tuple(self._followers.values())

    @property
    def following(self) -> bool:
        """Whether any follower of this frame is running."""
        with self._lock:
            return any(follower.running for follower in self._followers.values())

    def append(self, events: Events) -> None:
        """Add events, and drop those that are then too many or too old.

        Parameters
        ----------
        events : RecordBatch, Table, DataFrame or iterable
            Columns with the names of the schema (more are ignored), or events as dicts or JSON strings.

        Raises
        ------
        DataError
            A column is absent or cannot be turned into its type.
        RequestError
            An event lacks a key or holds a value of another type.
        """
        store = self._store
        schema = EVENT if store is None else store.schema
        batches = to_batches(events, schema, schema.arrow if store is None else store.arrow)
        with self._lock:
            if self._store is None:
                self._store = self._new_store(schema)
            if self._store.schema is not schema:
                raise StreamError("the columns of the frame changed while events were appended; append again")
            for batch in batches:
                self._store.append(batch)
                self._appended += batch.num_rows
            self._lock.notify_all()

    def wait(self, events: int = 1, timeout: float = 30.0) -> bool:
        """Block until `events` events were ever appended.

        Returns
        -------
        bool
            False if `timeout` seconds pass before, or all followers of the frame were stopped.

        Raises
        ------
        RequestError or DataError
            All followers have ended, and this is why.
        """

        def ended() -> bool:
            return bool(self._followers) and all(follower.ended for follower in self._followers.values())

        with self._lock:
            self._lock.wait_for(lambda: self._appended >= events or ended(), timeout)
            if self._appended >= events:
                return True
            errors = [follower.error for follower in self._followers.values() if follower.error is not None]
            if ended() and errors:
                raise errors[-1]
            return False

    @with_read_options
    def follow(self, source: Source, **options: Unpack[ReadOptions]) -> Follower:
        """Append the events of a stream, each once, on a thread of its own.

        After a break it goes on with the event that comes next, also when the server was killed and started
        again on its timeline. A server that is not there yet is waited for. Following the same address again
        replaces the first follower, so that a cell can be run twice.

        `start="earliest"` fills the window at once. A frame with a `window` needs the column `event_time`.

        Parameters
        ----------
        source : str or StreamServer
            `ws://host:port/ws`, the server's `http://host:port`, or a server of this process.
        **options : ReadOptions

        Returns
        -------
        Follower
            With `.stop()`, `.connected`, `.trouble`, `.error`, and the counters `.received`, `.reconnects`,
            `.restarts`, `.missed`, `.next_number`, `.silent_for`; also a context manager.

        Raises
        ------
        RequestError
            For an impossible address or option, and for what the server refuses at once. What it refuses
            later, after more than a second, is in `Follower.error`; `wait` raises it.
        """
        follower = Follower(Subscription.of(source, **options), self)
        with self._lock:
            before = self._followers.pop(follower.url, None)
            self._followers[follower.url] = follower
        if before is not None:
            before.stop()
        try:
            return follower.start(_ANSWER_SECONDS)
        except RequestError:
            with self._lock:
                if self._followers.get(follower.url) is follower:
                    del self._followers[follower.url]
            raise

    def follower_ended(self) -> None:
        """Wake those who wait for events."""
        with self._lock:
            self._lock.notify_all()

    @property
    def knows_columns(self) -> bool:
        """Whether the columns are settled: by the caller, a stream, or the first events."""
        return self._store is not None

    def take(self, rows: pa.RecordBatch) -> None:
        """Append events of a stream, whose columns become those of a frame without any."""
        with self._lock:
            if self._store is None:
                self._store = self._new_store(schema_of(rows.schema))
        self.append(rows)

    def _new_store(self, schema: Schema) -> Window:
        if self._span is not None and EVENT_TIME.name not in schema:
            raise RequestError(
                f"a window of {self._window} needs the column {EVENT_TIME.name!r}, "
                f"and the schema has none; use window=None to bound the frame by rows only"
            )
        return Window(schema, self._rows, self._span)


def _micros(name: str, span: str | timedelta) -> int:
    try:
        micros = parse_duration(span)
    except (ValueError, TypeError, AttributeError):
        micros = 0
    if not micros > 0:
        raise RequestError(f"{name} must be a time above 0 such as '5min' or '30s'; got {span!r}")
    return micros
