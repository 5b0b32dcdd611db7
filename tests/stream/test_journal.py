"""A timeline file: shared by processes, killed, torn, damaged, and never contradicted."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from logistream.errors import DataError, RequestError, StreamError
from logistream.stream import journal
from logistream.stream.journal import LEAD_MICROS, JournalTimeline, open_journal
from logistream.stream.timeline import Entry, Timeline
from logistream.times import wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND
HEADER: dict[str, str | int] = {"model": "a1b2c3", "model_name": "orders", "seed": 5, "arrivals": "poisson"}

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs signals, limits or POSIX names")


def opened(
    path: Path,
    header: dict[str, str | int] = HEADER,
    clock: Callable[[], int] = wall_clock,
    rate: float = 100.0,
) -> JournalTimeline:
    """Open a timeline file, or make one that begins a second ago."""

    def begin(now: int) -> Entry:
        return Entry(0, now - SECOND, now - SECOND, rate)

    return open_journal(path, header=header, begin=begin, clock=clock)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where no file is yet."""
    return tmp_path / "timeline"


class Clock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        """Return microseconds since the Unix epoch."""
        return self.now


class Worker:
    """Another process, which runs a script with `path`, `timeline` and `tell` at hand."""

    BEGIN = """
import json, os, random, sys
from pathlib import Path
sys.path.insert(0, os.path.dirname(sys.argv[1]))
from logistream.errors import LogistreamError
from logistream.times import wall_clock
from test_journal import LEAD_MICROS, opened
path = Path(sys.argv[2])
def tell(value):
    print(json.dumps(value), flush=True)
"""

    def __init__(self, path: Path, script: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.BEGIN + script, __file__, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> Any:
        """Return the next value that it tells."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def let_go_on(self) -> None:
        """Send it a line."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def rest(self) -> list[Any]:
        """Wait for its end and return all else that it told."""
        assert self.process.stdout
        told = self.process.stdout.read()
        self.process.wait()
        return [json.loads(line) for line in told.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def start(path: Path) -> Iterator[Callable[[str], Worker]]:
    """Give a way to start other processes, of which none stays."""
    workers: list[Worker] = []

    def starting(script: str) -> Worker:
        workers.append(Worker(path, script))
        return workers[-1]

    yield starting
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


# One process


def test_a_file_keeps_what_a_timeline_in_memory_would_hold(path: Path) -> None:
    """The same changes at the same moments give the same entries, and the file gives them back."""
    clock = Clock()
    kept = opened(path, clock=clock)
    memory = Timeline(kept.entries, kept.arrivals)
    for wait, change in (
        (SECOND, {"rate": 3.5}),
        (10, {"paused": True}),
        (0, {"rate": 70.0}),
        (5 * SECOND, {"paused": False, "scenario": "strike"}),
    ):
        clock.now += wait
        assert kept.change(clock.now, **change) == memory.change(clock.now + LEAD_MICROS, **change)
    again = opened(path, clock=clock)
    assert again.entries == kept.entries == memory.entries
    assert again.arrivals == kept.arrivals
    np.testing.assert_array_equal(again.times(0, 1000), memory.times(0, 1000))
    assert again.path == path
    assert again.shared


def test_the_first_lines_of_a_file(path: Path) -> None:
    """A header and an entry, readable by eye."""
    opened(path, clock=Clock())
    assert path.read_text() == (
        '{"logistream_timeline": 1, "model": "a1b2c3", "model_name": "orders", "seed": 5, '
        '"arrivals": "poisson"} af02ecbb\n'
        '{"first": 0, "since": "2026-11-18T11:06:39.000000Z", "start": "2026-11-18T11:06:39.000000Z", '
        '"rate": 100.0, "paused": false, "scenario": null} 6ae8fe21\n'
    )
    assert list(path.parent.iterdir()) == [path]


def test_a_change_takes_effect_a_lead_later(path: Path) -> None:
    """An entry is never earlier, so that what has been made known stays."""
    clock = Clock()
    timeline = opened(path, clock=clock)
    assert timeline.change(clock.now, rate=5).since == NOW + LEAD_MICROS
    clock.now += 10
    assert timeline.change(clock.now - 10, rate=6).since == NOW + LEAD_MICROS + 10
    assert (
        timeline.change(clock.now + 30, rate=7).since == NOW + LEAD_MICROS + 40
    )  # the caller's clock is ahead
    assert timeline.change(clock.now, rate=7) == timeline.last
    assert len(timeline.entries) == 4


def test_what_is_known_grows_with_every_look(path: Path) -> None:
    """Up to a lead after it, and never beyond the present."""
    clock = Clock()
    timeline = opened(path, clock=clock)
    assert timeline.known_until(NOW) == NOW
    assert timeline.known_until(NOW + SECOND) == NOW + LEAD_MICROS
    clock.now += SECOND
    assert timeline.refresh() is False
    assert timeline.known_until(NOW + 9 * SECOND) == NOW + SECOND + LEAD_MICROS
    clock.now += SECOND
    timeline.change(clock.now, rate=5)
    assert timeline.known_until(NOW + 9 * SECOND) == NOW + 2 * SECOND + LEAD_MICROS


def test_a_clock_set_back_rewrites_nothing(path: Path) -> None:
    """Neither within a process nor for one that starts after it do entries come before the last one."""
    clock = Clock()
    timeline = opened(path, clock=clock)
    first = timeline.change(clock.now, rate=5)
    clock.now -= 10 * SECOND
    timeline.refresh()
    assert timeline.known_until(NOW) == NOW
    assert timeline.change(clock.now, rate=6).since == first.since
    later = opened(path, clock=clock)
    assert later.change(clock.now, rate=7).since == first.since
    clock.now += 30 * SECOND
    assert later.change(clock.now, rate=8).since == clock.now + LEAD_MICROS
    assert timeline.refresh()
    assert timeline.entries == later.entries


def test_a_closed_timeline_can_be_read_but_not_changed(path: Path) -> None:
    """What was known stays; a change says why not."""
    timeline = opened(path)
    times = timeline.times(0, 100)
    timeline.close()
    timeline.close()
    np.testing.assert_array_equal(timeline.times(0, 100), times)
    assert timeline.refresh() is False
    with pytest.raises(StreamError, match=r"^timeline .*timeline is closed$"):
        timeline.change(wall_clock(), rate=5)


def test_a_value_that_is_not_allowed_writes_nothing(path: Path) -> None:
    """The file is as before, and the lock is free."""
    timeline = opened(path)
    before = path.read_bytes()
    with pytest.raises(StreamError, match="a timeline holds rates"):
        timeline.change(wall_clock(), rate=0)
    assert path.read_bytes() == before
    assert opened(path).change(wall_clock(), rate=9).rate == 9


def test_changes_from_many_threads_of_two_views(path: Path) -> None:
    """Threads of one process, on one open file and on two, exclude each other too."""
    views = [opened(path), opened(path)]

    def drag(number: int) -> None:
        for step in range(10):
            views[number % 2].change(wall_clock(), rate=1 + number + step / 100)
            views[number % 2].refresh()

    threads = [threading.Thread(target=drag, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for view in views:
        view.refresh()
    assert len(views[0].entries) == 61
    assert views[0].entries == views[1].entries == opened(path).entries


def test_a_file_that_another_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change gives up with a sentence; a look gives up at once and makes nothing known."""
    monkeypatch.setattr(journal, "_PATIENCE", 0.05)
    clock = Clock()
    timeline, other = opened(path, clock=clock), opened(path)
    known = timeline.known_until(NOW + SECOND)
    clock.now += SECOND
    with other._file.locked(exclusive=True, within=1) as held:
        assert held
        assert timeline.refresh() is False
        assert timeline.known_until(NOW + SECOND) == known
        sentence = "was held by another process for 0.05 s: is that stopped"
        with pytest.raises(StreamError, match=sentence):
            timeline.change(clock.now, rate=5)
        with pytest.raises(StreamError, match=sentence):
            opened(path)
    timeline.refresh()
    assert timeline.known_until(NOW + SECOND) == NOW + SECOND


# Files that are not as they should be


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({**HEADER, "seed": 0}, "belongs to seed 5, not 0: ask for that, or name another file"),
        ({**HEADER, "seed": 0, "arrivals": "even"},
         "belongs to seed 5, not 0, and to arrivals poisson, not even: ask for that, or name another file"),
        ({**HEADER, "more": 1}, "belongs to more none, not 1: ask for that, or name another file"),
        ({"model": "a1b2c3", "seed": 5, "arrivals": "poisson"},
         "belongs to model name orders, not none: ask for that, or name another file"),
    ],
)  # fmt: skip
def test_a_timeline_of_another_stream_is_refused(
    path: Path, header: dict[str, str | int], sentence: str
) -> None:
    """The sentence names what differs; the file is left alone."""
    opened(path).close()
    before = path.read_bytes()
    with pytest.raises(RequestError) as caught:
        opened(path, header)
    assert str(caught.value) == f"timeline {path} {sentence}"
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty, which no timeline file is: name another file, or one that does not exist yet"),
        (b"hello\n", "is not a timeline file: name another file, or one that does not exist yet"),
        (b"\x00" * 5000, "is not a timeline file: name another file, or one that does not exist yet"),
        (b'{"logistream_timeline": 2, "zones": []} 0\n',
         "was written by a later version of Logistream: update this one"),
        (b'{"logistream_timeline": 1, "seed": 5} 00000000\n', "is damaged in line 1: "
         "restore it from a copy, or begin another under a new name"),
        (b'{"logistream_timeline": 1, "seed', "is damaged in line 1: "
         "restore it from a copy, or begin another under a new name"),
    ],
)  # fmt: skip
def test_what_is_no_timeline_is_refused(path: Path, content: bytes, sentence: str) -> None:
    """The sentence tells what is wrong; the file is left alone."""
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        opened(path)
    assert str(caught.value).removeprefix("timeline ") == f"{path} {sentence}"
    assert path.read_bytes() == content


def test_where_no_file_can_be(tmp_path: Path) -> None:
    """A folder that is missing, or a folder in the file's place."""
    with pytest.raises(StreamError, match=r"^timeline .*file cannot be made: No such file or directory$"):
        opened(tmp_path / "none" / "file")
    with pytest.raises(StreamError, match=r"^timeline .* cannot be opened: "):
        opened(tmp_path)


def filled(path: Path) -> tuple[bytes, tuple[Entry, ...], int]:
    """Make a file of four entries; return its bytes, its entries and the length of its last line."""
    clock = Clock()
    timeline = opened(path, clock=clock)
    for rate in (5, 7, 9):
        clock.now += SECOND
        timeline.change(clock.now, rate=rate)
    timeline.close()
    data = path.read_bytes()
    return data, timeline.entries, len(data.splitlines(keepends=True)[-1])


def test_a_torn_last_line_is_left_out_and_cut_away(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever it was cut: told in one sentence, once, and the next change takes its place."""
    data, entries, last = filled(path)
    for length in range(len(data) - last, len(data)):
        path.write_bytes(data[:length])
        caplog.clear()
        timeline = opened(path)
        assert timeline.entries == entries[:-1]
        timeline.refresh()
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == (length > len(data) - last)
        if warnings:
            assert warnings[0].getMessage() == (
                f"timeline {path}: line 5, the last, is not whole and is left out; "
                "what was being written when a process or the machine stopped has not happened"
            )
        assert path.read_bytes() == data[:length]  # only who writes cuts it away
        other = opened(path)
        entry = timeline.change(wall_clock(), scenario="x" * (length % 50))
        assert other.refresh() == (entry is timeline.last and len(timeline.entries) == 4)
        assert other.entries == opened(path).entries == timeline.entries
        for view in (timeline, other):
            view.close()


def test_a_long_rest_is_cut_away_too(path: Path) -> None:
    """Nothing stays behind a new line that is shorter than what was left out."""
    data, entries, _ = filled(path)
    path.write_bytes(data + b"\x00" * 5000)
    timeline = opened(path)
    assert timeline.entries == entries
    timeline.change(wall_clock(), rate=3)
    assert len(path.read_bytes()) < len(data) + 500
    assert opened(path).entries == timeline.entries


def test_a_damaged_file_is_refused_or_loses_its_last_line(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Any bit of any byte flipped: never another timeline."""
    data, entries, last = filled(path)
    caplog.set_level(logging.CRITICAL, "logistream")
    refused = 0
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(data):
            for bit in range(8):
                file.seek(place)
                file.write(bytes([byte ^ 1 << bit]))
                try:
                    timeline = opened(path)
                except DataError:
                    refused += 1
                else:
                    assert place >= len(data) - last
                    assert timeline.entries == entries[:-1]
                    timeline.close()
            file.seek(place)
            file.write(bytes([byte]))
    assert refused >= 8 * (len(data) - last)
    assert opened(path).entries == entries


@pytest.mark.parametrize("change", ["left out", "twice", "swapped", "joined"])
def test_lines_that_are_not_where_they_were_are_noticed(path: Path, change: str) -> None:
    """Lines that are whole, but missing, repeated, in another order, or without an end between them."""
    header, *lines = filled(path)[0].splitlines(keepends=True)
    path.write_bytes(
        header
        + {
            "left out": lines[0] + lines[2] + lines[3],
            "twice": lines[0] + lines[1] + lines[1] + lines[2],
            "swapped": lines[0] + lines[2] + lines[1] + lines[3],
            "joined": lines[0] + lines[1] + lines[2].rstrip(b"\n") + b" " + lines[3],
        }[change]
    )
    with pytest.raises(DataError, match=r"is damaged in line [345]: restore it from a copy"):
        opened(path)


def test_an_entry_that_does_not_follow_is_refused(path: Path) -> None:
    """A file with true checksums whose entries cannot be; in use too, and then for good."""
    clock = Clock()
    timeline = opened(path, clock=clock)
    clock.now += SECOND
    with timeline._file.locked(exclusive=True, within=1):
        timeline._file.append(Entry(3, NOW + SECOND, NOW + 2 * SECOND, 5.0).to_json())
    used = timeline._file  # as another process would have written it
    with pytest.raises(DataError, match=r"is damaged: timeline entry .* does not follow"):
        opened(path)
    used.close()


def test_a_file_that_is_damaged_in_use_stops_what_reads_it(path: Path) -> None:
    """What was known stays certain, nothing more becomes so, and every look says why."""
    clock = Clock()
    timeline, writer = opened(path, clock=clock), opened(path, clock=clock)
    known = timeline.known_until(NOW + 9 * SECOND)
    clock.now += SECOND
    with writer._file.locked(exclusive=True, within=1):
        writer._file.append(Entry(3, NOW + SECOND, NOW + 2 * SECOND, 5.0).to_json())
        writer._file.append(Entry(4, NOW + 3 * SECOND, NOW + 4 * SECOND, 5.0).to_json())
    for _ in range(2):
        with pytest.raises(DataError, match="does not follow"):
            timeline.refresh()
        with pytest.raises(DataError, match="does not follow"):
            timeline.change(clock.now, rate=3)
    assert timeline.known_until(NOW + 9 * SECOND) == known
    assert len(timeline.entries) == 1


def test_a_file_cut_short_in_use_is_noticed(path: Path) -> None:
    """Someone emptied it: neither a look nor a change takes that for a timeline."""
    timeline = opened(path)
    path.write_bytes(b"")
    for act in (timeline.refresh, lambda: timeline.change(wall_clock(), rate=3)):
        with pytest.raises(DataError, match="lost its end while in use: restore it from a copy"):
            act()


@posix
def test_a_file_deleted_in_use_takes_no_changes(path: Path) -> None:
    """A change that nobody could ever read is refused."""
    timeline = opened(path)
    path.unlink()
    with pytest.raises(StreamError, match="was deleted or replaced while in use: start again"):
        timeline.change(wall_clock(), rate=3)
    assert len(timeline.entries) == 1


# Several processes


def test_processes_that_start_together_make_one_file(path: Path, start: Callable[[str], Worker]) -> None:
    """Of four that open the same names at the same moments, one makes each file, and all read it."""
    workers = [
        start("""
tell("ready")
begin = int(sys.stdin.readline())
for number in range(10):
    while wall_clock() < begin + number * 10_000:
        pass
    timeline = opened(path.with_name(f"shared-{number}"), rate=1 + os.getpid() % 1000)
    tell([entry.to_json() for entry in timeline.entries])
""")
        for _ in range(4)
    ]
    for worker in workers:
        worker.hear()
    begin = wall_clock() + 20_000
    for worker in workers:
        assert worker.process.stdin
        worker.process.stdin.write(f"{begin}\n")
        worker.process.stdin.flush()
    told = [worker.rest() for worker in workers]
    assert len(told[0]) == 10
    assert told[0] == told[1] == told[2] == told[3]
    assert len(list(path.parent.iterdir())) == 10


def test_changes_of_many_processes_make_one_timeline(path: Path, start: Callable[[str], Worker]) -> None:
    """Four write, one looks: all agree, and no later entry contradicts what a look made known."""
    reader = opened(path, rate=20_000)
    looks: list[tuple[int, int, int]] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.0005):
            reader.refresh()
            known = reader.known_until(2**62)
            looks.append((len(reader.entries), known, reader.count(known)))

    workers = [
        start("""
timeline = opened(path)
tell("ready")
sys.stdin.readline()
generator = random.Random(os.getpid())
for step in range(50):
    before = wall_clock()
    entry = timeline.change(before, rate=generator.uniform(1_000, 50_000), paused=generator.random() < 0.2)
    assert entry.since >= before + LEAD_MICROS
    tell(entry.to_json())
sys.stdin.readline()
timeline.refresh()
times = timeline.times(0, timeline.last.first)
tell([len(timeline.entries), timeline.last.to_json(), times.tolist()[-1000:]])
""")
        for _ in range(4)
    ]
    for worker in workers:
        worker.hear()
    looking = threading.Thread(target=look)
    looking.start()
    try:
        for worker in workers:
            worker.let_go_on()
        changed = [[Entry.from_json(worker.hear()) for _ in range(50)] for worker in workers]
    finally:
        done.set()
        looking.join()
    for worker in workers:
        worker.let_go_on()
    (views,) = {json.dumps(worker.rest()) for worker in workers}

    final = opened(path)
    reader.refresh()
    assert reader.entries == final.entries
    last = final.last.first
    assert json.loads(views) == [[201, final.last.to_json(), final.times(0, last).tolist()[-1000:]]]
    assert {entry for entries in changed for entry in entries} == set(final.entries[1:])
    assert (np.diff(final.times(0, last)) > 0).all()

    latest = {entries: (known, count) for entries, known, count in looks}
    assert len(latest) > 5  # it did look in between
    for entries, (known, count) in latest.items():
        assert final.count(known) == count
        if entries < len(final.entries):
            unseen = final.entries[entries]
            assert unseen.since >= known
            assert unseen.first >= count
            then = Timeline(final.entries[:entries], final.arrivals)
            assert then.count(unseen.since) == unseen.first


@posix
def test_writers_killed_at_any_moment(path: Path, start: Callable[[str], Worker]) -> None:
    """Twenty are, two at a time; the file always opens, and holds all that a change had returned."""
    opened(path).close()
    worker = start("""
import signal, time
chance = random.Random(3)

def write(pipe):
    timeline = opened(path)
    generator = random.Random(os.getpid())
    while True:
        entry = timeline.change(wall_clock(), rate=generator.uniform(1, 1000))
        os.write(pipe, json.dumps(entry.to_json()).encode() + b"\\n")

for _ in range(10):
    pair = []
    for _ in range(2):
        reading, writing = os.pipe()
        child = os.fork()  # no import to wait for; it opens the file itself
        if not child:
            try:
                write(writing)
            finally:
                os._exit(1)
        os.close(writing)
        pair.append((child, open(reading)))
    returned = [pipe.readline() for _, pipe in pair]
    for child, pipe in pair:
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    for _, pipe in pair:
        returned += pipe.readlines()
        pipe.close()
    tell([json.loads(line) for line in returned if line.endswith("\\n")])
    sys.stdin.readline()
""")
    returned: set[Entry] = set()
    seen: tuple[Entry, ...] = ()
    for _ in range(10):
        returned |= set(map(Entry.from_json, worker.hear()))
        entries = opened(path).entries
        assert entries[: len(seen)] == seen
        assert returned <= set(entries)
        seen = entries
        worker.let_go_on()
    assert len(seen) > 20


@posix
def test_a_full_disk_leaves_the_file_as_it_was(path: Path, start: Callable[[str], Worker]) -> None:
    """Wherever in the line the room ends, nothing of it stays; where there is room, the next is written."""
    opened(path).close()
    worker = start("""
import resource
timeline = opened(path)
before = path.read_bytes()
for room in (0, 1, 50, 100):
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, resource.RLIM_INFINITY))
    try:
        timeline.change(wall_clock(), rate=9)
    except LogistreamError as error:
        tell([type(error).__name__, str(error), path.read_bytes() == before, len(timeline.entries)])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
tell([timeline.change(wall_clock(), rate=9).to_json()])
""")
    *failed, (entry,) = worker.rest()
    assert failed == [["StreamError", f"timeline {path} cannot be written: File too large", True, 1]] * 4
    assert opened(path).last == Entry.from_json(entry)


@posix
def test_a_folder_without_room_gets_no_file(path: Path, start: Callable[[str], Worker]) -> None:
    """A file that cannot be written whole is not there at all."""
    worker = start("""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (60, resource.RLIM_INFINITY))
try:
    opened(path)
except LogistreamError as error:
    tell([str(error), os.listdir(path.parent)])
""")
    assert worker.rest() == [[f"timeline {path} cannot be made: File too large", []]]
