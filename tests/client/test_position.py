"""Where a reader is in its stream, whatever breaks, repeats and restarts do."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from logistream.client.follower import new_rows
from logistream.client.position import Position
from logistream.schema import EVENT_NUMBER
from logistream.stream.query import Place


@dataclass(frozen=True)
class Connection:
    """One connection to a server, as it may go.

    Attributes
    ----------
    restarted : bool
        Whether the server has lost its stream before.
    back : int
        How many events it repeats.
    sizes : list of int
        Events in the messages that come through before the connection breaks.
    """

    restarted: bool
    back: int
    sizes: list[int]


connections = st.builds(
    Connection,
    restarted=st.sampled_from([False, False, False, True]),
    back=st.integers(0, 5),
    sizes=st.lists(st.integers(0, 4), max_size=5),
)


def message(first: int, stop: int, keep: int) -> bytes:
    """Write the message of those events whose number is a multiple of `keep`, with their numbers."""
    numbers = [number for number in range(first, stop) if number % keep == 0]
    fields = [pa.field(name, pa.int64()) for name in ("n", EVENT_NUMBER.name)]
    schema = pa.schema(fields, {"first_event_number": str(first), "next_event_number": str(stop)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays([pa.array(numbers, pa.int64())] * 2, schema=schema))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def read(script: list[Connection], keep: int, *, batches: bool) -> tuple[list[list[int]], Position]:
    """Read through all connections from the earliest event on; return what was taken of each stream."""
    position = Position("earliest", filtered=keep > 1)
    life = 0
    taken: list[list[int]] = [[]]
    for connection in script:
        life += connection.restarted
        while True:
            requested = 0 if position.start == "earliest" else position.next_number or 0
            if position.enter(str(life), requested):
                break
            taken.append([])
        cursor = max(0, requested - connection.back)
        for size in connection.sizes:
            stop = cursor + size
            if batches:
                rows = new_rows(message(cursor, stop, keep), position, filtered=keep > 1, numbered=True)
                taken[-1] += rows.column("n").to_pylist()
            else:
                taken[-1] += [n for n in range(cursor, stop) if n % keep == 0 and position.take(Place(n))]
            cursor = stop
    return taken, position


@settings(deadline=None)
@given(st.lists(connections, max_size=12), st.sampled_from([1, 3]), st.booleans())
def test_every_event_of_a_stream_is_taken_once_and_in_order(
    script: list[Connection], keep: int, batches: bool
) -> None:
    """Any breaks, repeats and restarts leave each stream without gap or repeat from its first event on."""
    taken, position = read(script, keep, batches=batches)
    assert all(numbers == [keep * n for n in range(len(numbers))] for numbers in taken)
    assert position.missed == 0
    assert position.restarts == len(taken) - 1
    if script:
        last = taken[-1]
        assert position.next_number is not None
        assert position.next_number > (last[-1] if last else -1)


def test_the_answer_gives_the_number_of_the_first_event() -> None:
    """A break before the first event loses nothing: the reader then requests the number that it was given."""
    position = Position()
    assert position.start is None
    assert position.enter("a", 41)
    assert position.start == "41"


def test_another_stream_begins_again_with_what_the_caller_asked_for() -> None:
    """The number of an old stream means nothing in a new one."""
    position = Position("2026-11-24T06:23:00Z")
    assert position.enter("a", 100)
    position.take(Place(100))
    assert not position.enter("b", 101)
    assert (position.start, position.restarts, position.next_number) == ("2026-11-24T06:23:00Z", 1, None)
    assert position.enter("b", 0)
    assert position.start == "0"


def test_gaps_are_counted_unless_events_are_filtered() -> None:
    """A gap between numbers is a loss; of a selection only the server knows."""
    whole, some = Position(), Position(filtered=True)
    for position in (whole, some):
        position.enter("a", 10)
        position.skip(5)
        assert position.take(Place(15))
        assert position.missed == 5
        assert not position.take(Place(12))
        assert position.next_number == 16


def test_a_reader_of_deliveries_resumes_after_its_last_place() -> None:
    """Also before the first delivery, if it began at a place; an earlier delivery is a repeat."""
    position = Position("40.2", filtered=True)
    assert position.enter("a", 40)
    assert position.start == "40.2"
    assert position.take(Place(40, 2))
    assert position.start == "40.3"
    assert not position.take(Place(40, 1))
    assert position.take(Place(77))
    assert (position.start, position.next_number, position.missed) == ("77.1", 78, 0)
    position = Position("40.2")
    assert position.enter("a", 41)  # slot 40 had no more
    assert position.start == "41"
