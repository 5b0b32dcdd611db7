"""The widgets without a browser: what is asked of them has its effect, and nothing is left behind."""

from __future__ import annotations

import base64
import gc
import io
import json
import threading
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from helpers.networks import random_network
from helpers.processes import run_python
from helpers.sockets import free_port
from helpers.waiting import until
from logistream.errors import RequestError
from logistream.frame.frame import RollingFrame
from logistream.server.server import StreamServer
from logistream.widgets import ControlPanel, Dashboard, Workbench
from logistream.widgets.board import Board
from logistream.widgets.static_image import Picture, draw_png
from logistream.widgets.summary import lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from logistream.model.model import Model


CASH = {"name": "cash", "effects": [{"set": {"Type": "CASH"}}]}


class Page:
    """What a page does with a widget: it opens a view, keeps what comes, and sends what a person does."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.messages: list[tuple[dict[str, Any], list[bytes]]] = []
        board.send = lambda content, buffers=None: self.messages.append((content, buffers or []))

    def do(self, kind: str, **message: Any) -> None:
        """Send a message of the page to the kernel."""
        self.board._handle_custom_msg({"kind": kind, **message}, [])

    def open(self, view: str = "v") -> None:
        """Open a view."""
        self.do("open", view=view)

    def last(self, key: str) -> Any:
        """Return the newest value that came under a key."""
        return next((content[key] for content, _ in reversed(self.messages) if key in content), None)

    def refusals(self) -> list[str]:
        """Return the sentences by which something was refused."""
        return [content["text"] for content, _ in self.messages if content["kind"] == "refused"]


@pytest.fixture
def bench(server: StreamServer) -> Iterator[Workbench]:
    """Give a workbench of a running server that has shown some events."""
    bench = Workbench(server)
    assert bench.frame.wait(events=20, timeout=90)
    yield bench
    bench.close()


@pytest.fixture
def page(bench: Workbench) -> Page:
    """Give a page with an open view of the workbench."""
    page = Page(bench)
    page.open()
    return page


def threads(name: str) -> list[threading.Thread]:
    """Return the threads of this name."""
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_a_view_gets_everything_and_then_what_changed(page: Page) -> None:
    """The first message holds all cells and the layout; later ones are small."""
    content, buffers = page.messages[0]
    assert content["layout"]["by"] == "Shipping Mode"
    assert content["labels"][0] == ""
    first, count, width = content["cells"]
    assert len(buffers[0]) == 4 * count * width
    assert len(content["rows"]) == 12
    until(lambda: sum("cells" in content for content, _ in page.messages) > 4)
    contents = [content for content, _ in page.messages]
    assert all("layout" not in content for content in contents[1:])
    for before, after in pairwise(contents):
        assert after["now"] >= before["now"]
    newest = first  # cell that has events
    for changed, [cells, *_] in [message for message in page.messages if "cells" in message[0]]:
        begin, *shape = changed["cells"]
        assert begin >= newest  # what was sent before is not sent again
        newest = begin + int(np.flatnonzero(np.frombuffer(cells, np.float32).reshape(shape)[:, 0] >= 0)[-1])
    assert contents[-1]["now"] > content["now"]
    assert first > 0


def test_a_page_that_misses_a_message_can_have_everything_again(page: Page) -> None:
    """Updates are numbered without a gap, and `everything` brings all cells and the layout."""
    until(lambda: len(page.messages) > 3)
    page.do("everything")
    numbers = [content["number"] for content, _ in page.messages]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    whole = [content for content, _ in page.messages if content.get("whole")]
    assert len(whole) == 2
    assert {"layout", "labels", "state", "cells", "rows"} <= whole[1].keys()


@pytest.mark.slow
def test_the_message_stream_is_small(page: Page, server: StreamServer) -> None:
    """At a thousand events a second less than 20 kB a second leave the kernel, headers aside."""
    server.rate = 1000
    until(lambda: page.last("settings")["rate"] == 1000)
    begin = page.last("now")
    page.messages.clear()
    until(lambda: (page.last("now") or begin) - begin > 3)
    messages = page.messages[:]
    size = sum(len(json.dumps(content)) + sum(map(len, buffers)) for content, buffers in messages)
    assert size < (messages[-1][0]["now"] - begin) * 20_000


def test_looking_changes_nothing(model: Model) -> None:
    """A rate off any grid survives being displayed, whoever looks at it."""
    with StreamServer(model, rate=7.03, port=0) as server:
        bench, panel = Workbench(server), ControlPanel(server)
        pages = [Page(bench), Page(panel)]
        for each in pages:
            each.open()
        server.rate = 700.01
        for each in pages:
            until(lambda each=each: each.last("settings")["rate"] == 700.01)  # type: ignore[misc]
        assert server.rate == 700.01
        assert len(server.timeline.entries) == 2
        panel.close()
        bench.close()


def test_a_typed_rate_is_kept_to_the_digit(page: Page, server: StreamServer) -> None:
    """One action is one entry of the timeline."""
    before = len(server.timeline.entries)
    page.do("rate", value=63.217)
    assert server.rate == 63.217
    assert len(server.timeline.entries) == before + 1


@pytest.mark.parametrize("value", [0, -5, 20_000_000, "fast", None, float("nan")])
def test_a_rate_out_of_range_is_refused_in_words(page: Page, server: StreamServer, value: Any) -> None:
    """The message of the server is shown, and the rate stays."""
    page.do("rate", value=value)
    assert server.rate == 200
    assert value is None or page.refusals()


def test_pause_and_resume(page: Page, server: StreamServer) -> None:
    """The state follows the server, with a reason, and the pause is marked."""
    page.do("pause", value=True)
    until(lambda: page.board.state() == ("paused", "no event happens until it is resumed"))  # caught up
    page.do("pause", value=False)
    assert page.board.state()[0] == "live"
    assert [entry.paused for entry in server.timeline.entries] == [False, True, False]
    assert [mark["kind"] for mark in page.last("marks")][-2:] == ["pause", "resume"]


def test_a_change_of_rate_is_marked(page: Page, server: StreamServer) -> None:
    """The mark holds the rate before and after."""
    server.rate = 50
    until(lambda: bool(page.last("marks")))
    assert page.last("marks")[-1]["text"] == "200 → 50/s"


def test_a_filter_holds_for_all_panels(page: Page, bench: Workbench) -> None:
    """Rows, cells and map show matching events only; no filter shows all again."""
    page.do("filter", value={"Shipping Mode": ["First Class"]})
    assert page.last("layout")["filters"] == {"Shipping Mode": ["First Class"]}
    until(lambda: len(page.last("rows")) > 0)
    place = page.last("layout")["names"].index("Shipping Mode")
    assert {row[place] for row in page.last("rows")} == {"First Class"}
    counts = bench._counts
    assert counts is not None
    assert counts.cells.members == [counts.cells.labels.index("First Class")]
    page.do("filter", value={})
    assert page.last("layout")["filters"] == {}


@pytest.mark.parametrize("form", ["png", "csv", "parquet"])
def test_an_export_that_cannot_be_written_says_so(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """In a folder that is gone, for example."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    page.do("export", format=form)
    assert page.refusals()[-1].startswith("export failed: ")


def test_another_grouping_counts_from_the_begin(page: Page, bench: Workbench) -> None:
    """The events that the frame holds are counted again by the new column."""
    page.do("by", value="Market")
    assert page.last("layout")["by"] == "Market"
    assert "Europe" in page.last("labels")
    page.do("by", value="Sales")
    assert page.refusals() == ["by needs a category column, and 'Sales' is a number"]
    assert bench.columns is not None
    assert bench.columns.by == "Market"


def test_the_past_is_asked_of_the_server(model: Model) -> None:
    """What the frame never held is counted from what the server makes again."""
    with StreamServer(model, rate=50, port=0, history="30min") as server:
        bench = Workbench(server)
        page = Page(bench)
        page.open()
        start = server.timeline.entries[0].since / 1e6
        page.do("past", id=1, **{"from": start, "to": start + 60})
        until(lambda: page.last("step") is not None)
        content, buffers = next(message for message in page.messages if message[0]["kind"] == "past")
        table = np.frombuffer(buffers[0], np.float32).reshape(content["cells"][1:])
        used = len(content["labels"])
        assert table[:, 3 : 3 + used].sum() == pytest.approx(3000, abs=30)
        bench.close()


@pytest.mark.slow
@pytest.mark.parametrize("rate", [50, 5000])
def test_an_image_shows_the_past_that_is_looked_at(model: Model, rate: float) -> None:
    """Its lines fill the axis with the rate of the stream, also where only a sample is counted."""
    with StreamServer(model, rate=rate, port=0, history="30min") as server:
        bench = Workbench(server)
        page = Page(bench)
        start = server.timeline.entries[0].since / 1e6 + 60
        page.do("view", range=[start, start + 60], span=120)
        picture = bench.picture()
        assert picture.cells is not None
        drawn = lines(
            picture.cells, picture.start, picture.stop, window=picture.window, rate_window=1.0,
            weights=picture.weights,
        )  # fmt: skip
        assert (drawn.time[0], drawn.time[-1]) == pytest.approx((start, start + 60), abs=3)
        assert drawn.rate == pytest.approx(np.full(len(drawn.rate), rate), rel=0.05)
        assert np.isfinite(drawn.share).all()
        assert (picture.weights is not None) == (rate == 5000)
        bench.close()


def test_a_killed_server_is_not_shown_as_live(model: Model) -> None:
    """State and reason come from the follower: what is wrong, how far behind, whether anything is lost."""
    port = free_port()
    server = StreamServer(model, rate=200, port=port).start()
    bench = Workbench(server.url)
    assert bench.frame.wait(events=20, timeout=90)
    until(lambda: bench.state()[0] == "live")
    until(lambda: bench.picture().settings is not None)  # it has answered once
    server.stop()
    until(lambda: bench.state()[0] == "reconnecting")
    until(lambda: all(words in bench.state()[1] for words in ("nothing lost", "events behind")))
    bench.close()


def test_a_stopped_server_of_this_process_is_shown_as_stopped(bench: Workbench, server: StreamServer) -> None:
    """The state names what happened."""
    server.stop()
    until(lambda: bench.state() == ("stopped", "the server was stopped"))


def test_a_workbench_alone_is_a_server_a_frame_and_a_dashboard(model: Model) -> None:
    """One line streams with some history, and closing it leaves neither thread nor port."""
    bench = Workbench(model, rate=100)
    assert bench.server is not None
    assert bench.server.running
    assert bench.frame.wait(events=100 * 60, timeout=90)
    assert bench.state()[0] == "live"
    server = bench.server
    bench.close()
    assert not server.running
    until(lambda: not bench.frame.following)


def test_what_belongs_to_others_stays(server: StreamServer) -> None:
    """Closing a workbench of a given server or frame stops neither."""
    frame = RollingFrame()
    with frame.follow(server.websocket_url) as follower:
        Workbench(frame).close()
        Workbench(server).close()
        assert follower.running
        assert server.running


def test_a_server_that_does_not_run_is_started(model: Model) -> None:
    """It is stopped again with the workbench that started it."""
    server = StreamServer(model, port=0)
    bench = Workbench(server)
    assert server.running
    bench.close()
    assert not server.running


@pytest.mark.parametrize("make", [Workbench, Dashboard, ControlPanel])
def test_all_take_a_server_an_address_and_a_frame(make: Any, server: StreamServer) -> None:
    """Each widget takes a server, either address of it, or a frame."""
    frame = RollingFrame()
    with frame.follow(server.websocket_url):
        for source in (server, server.url, server.websocket_url, frame):
            made = make(source)
            until(lambda made=made: made.state()[0] == "live")  # type: ignore[misc]
            made.close()


def test_a_panel_of_a_frame_that_follows_nothing_is_refused() -> None:
    """There is nothing to steer."""
    with pytest.raises(RequestError, match="follows no stream"):
        ControlPanel(RollingFrame())


@pytest.mark.parametrize("make", [Workbench, Dashboard, ControlPanel])
def test_another_source_is_refused_in_a_sentence(make: Any) -> None:
    """The message holds what was given."""
    with pytest.raises(RequestError, match="expected a StreamServer, an address or a RollingFrame, not 7"):
        make(7)


def test_the_menu_of_scenarios_is_what_the_server_says(page: Page, server: StreamServer) -> None:
    """A choice is sent whole, and shown as in force because the server says so; likewise from code."""

    def in_force() -> list[str]:
        return [each["name"] for each in page.last("scenarios") if each["on"]]

    named = page.last("scenarios")
    assert (len(named), in_force()) == (5, [])
    page.do("scenario", value=named[0]["value"])
    assert [scenario.name for scenario in server.scenario] == in_force() == ["peak season"]
    assert page.last("settings")["rate"] == 600
    assert page.last("marks")[-1]["text"] == "peak season, 200 → 600/s"
    server.scenario = [CASH, CASH | {"name": "more"}]
    until(lambda: in_force() == ["cash; more"])
    assert page.last("scenarios")[-1]["text"] == "Type = CASH; Type = CASH"
    page.do("scenario", value=[{"effects": []}])
    assert "from 1 to 16 effects" in page.refusals()[-1]
    page.do("scenario", value=None)
    assert (server.scenario, in_force(), page.last("scenarios")) == ((), [], named)
    assert page.last("marks")[-1]["text"] == "end of cash; more"


def test_faults_are_added_and_taken_away_one_by_one(page: Page, server: StreamServer) -> None:
    """Also if the page does not know yet what the last click did; others than the usual are listed too."""

    def choices() -> dict[str, Any]:
        return {each["name"]: each for each in page.last("faults")}

    usual = ["late 5 %", "duplicates 2 %", "drops 1 %", "corrupted 1 %"]
    before = choices()
    assert list(before) == usual
    for name in usual:
        page.do("faults", value=before[name]["value"])
        assert choices()[name]["on"]
    assert [fault.kind for fault in server.faults] == ["late", "duplicate", "drop", "corrupt"]
    page.do("faults", value=choices()["drops 1 %"]["value"])
    assert [fault.kind for fault in server.faults] == ["late", "duplicate", "corrupt"]
    assert page.last("marks")[-1]["text"] == "faults: late 5 %, duplicates 2 %, corrupted 1 %"
    server.faults = [{"reorder": {"within": 5}, "share": 0.5, "where": {"Market": "Europe"}}]
    until(lambda: "out of order 50 %" in choices())
    assert choices()["out of order 50 %"]["text"] == "reorder within 5, share 0.5 where Market:Europe"
    page.do("faults", value=[{"drop": True}])
    assert "share of a fault" in page.refusals()[-1]
    page.do("faults", value=None)
    assert (server.faults, list(choices())) == ((), usual)


def test_a_refusal_of_the_server_is_passed_on(model: Model) -> None:
    """A read-only server says why no scenario can be set."""
    with StreamServer(model, port=0, read_only=True) as server:
        panel = ControlPanel(server.url)
        page = Page(panel)
        page.open()
        until(lambda: bool(page.last("scenarios")))
        page.do("scenario", value=page.last("scenarios")[0]["value"])
        assert "read-only" in page.refusals()[-1]
        assert server.scenario == ()
        panel.close()


def test_another_model_has_a_menu_while_a_scenario_is_in_force() -> None:
    """The named scenarios are those of orders."""
    model, _ = random_network(1)
    scenario = {"name": "ones", "effects": [{"weight": 2, "where": "c0:1"}]}
    with StreamServer(model, port=0) as server:
        panel = ControlPanel(server)
        page = Page(panel)
        page.open()
        assert page.last("scenarios") == []
        server.scenario = scenario
        until(lambda: bool(page.last("scenarios")))
        [only] = page.last("scenarios")
        assert (only["name"], only["on"], only["text"]) == ("ones", True, "weight 2 where c0:1")
        page.do("scenario", value=None)
        assert page.last("scenarios") == []
        panel.close()


def test_the_static_image_marks_scenarios(bench: Workbench, server: StreamServer) -> None:
    """It has the name in force, and a mark with the name where the scenario began."""
    without = bench.picture()
    server.scenario = CASH
    begun = server.timeline.last.since / 1e6
    until(lambda: bench.frame["event_time"].iloc[-1].timestamp() > begun)
    assert bench.frame["Type"].iloc[-1] == "CASH"
    picture = bench.picture()
    assert picture.settings is not None
    assert picture.settings.scenarios == server.scenario
    since = server.timeline.last.since / 1e6
    assert picture.marks[len(without.marks) :] == ((since, "scenario", "cash"),)
    assert picture.start / 1e6 < since < picture.stop / 1e6
    lines_only = replace(picture, parts=("time",))
    marked, plain = pixels_of(lines_only), pixels_of(replace(lines_only, marks=without.marks))
    differs = (np.abs(marked - plain) > 40).any(axis=-1)
    assert differs.sum(axis=0).max() > 60  # an upright line, in one column of pixels


def test_the_static_image_says_paused_and_over_which_time(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paused stream is asked for no rate, and a young one has no mean of ten seconds."""
    texts: list[str] = []
    monkeypatch.setattr("logistream.widgets.static_image._write", lambda *given, **_: texts.append(given[3]))
    picture = replace(bench.picture(), state=("live", ""))  # also if the frame is late
    assert picture.settings is not None
    draw_png(picture)
    assert "200 asked" in texts
    texts.clear()
    draw_png(replace(picture, settings=replace(picture.settings, paused=True)))
    assert "paused" in texts
    assert "200 asked" not in texts

    frame, _ = frame_without_server(np.arange(25) / 4)
    board = Dashboard(frame)
    texts.clear()
    draw_png(board.picture())
    assert "mean, last 6 s" in texts
    board.close()


def frame_without_server(seconds: np.ndarray) -> tuple[RollingFrame, int]:
    """Return a frame of events at these seconds, and the time of the last one in microseconds since 1970."""
    import pandas as pd

    from logistream.schema import EVENT_TIME, Column, Schema

    frame = RollingFrame(schema=Schema((Column("x", "number"), EVENT_TIME)))
    when = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(seconds, "s")
    frame.append(pd.DataFrame({"x": 1.5, "event_time": when}))
    return frame, when[-1].value // 1000


def pixels_of(picture: Picture) -> np.ndarray:
    """Return red, green, blue and opacity of each pixel of a static image."""
    return np.asarray(Image.open(io.BytesIO(draw_png(picture))).convert("RGBA")).astype(int)


def test_impossible_lengths_are_refused(server: StreamServer) -> None:
    """The message holds what is allowed."""
    with pytest.raises(RequestError, match=r"span must be from 1 to 3600 seconds, not 0\.1"):
        Dashboard(server, span=0.1)
    with pytest.raises(RequestError, match="rate is for a server that is made here"):
        Workbench(server, rate=5)


def test_nothing_is_sent_when_nobody_looks(bench: Workbench) -> None:
    """The thread ends with the last view and starts again with the next."""
    page = Page(bench)
    page.open("a")
    page.open("b")
    page.do("close", view="a")
    assert threads("logistream widget")
    page.do("close", view="b")
    until(lambda: not threads("logistream widget"))
    page.open("c")
    assert threads("logistream widget")


def test_a_view_that_closes_before_it_opens_stays_closed(bench: Workbench) -> None:
    """Messages of a view may come in either order: they can take two channels to the kernel."""
    page = Page(bench)
    page.do("close", view="a")
    page.open("a")
    until(lambda: not threads("logistream widget"))


@pytest.mark.slow
def test_a_dashboard_does_not_keep_its_frame_alive(server: StreamServer) -> None:
    """A frame that nobody holds any more is not fed for the sake of a chart."""
    frame = RollingFrame()
    follower = frame.follow(server.websocket_url)
    assert frame.wait(events=5, timeout=90)
    board = Dashboard(frame, server)
    board.picture()
    del frame
    gc.collect()
    until(lambda: not follower.running)
    assert board.state() == ("stopped", "the frame is gone")
    board.close()


def test_the_axis_stops_when_no_event_can_come() -> None:
    """A frame without a follower is drawn as it is, with that as its state."""
    frame, newest = frame_without_server(np.arange(100))
    board = Dashboard(frame)
    first, second = board.picture(), board.picture()
    assert first.stop == second.stop == newest
    assert first.state == ("stopped", "the frame follows no stream")
    board.close()


def test_a_frame_without_times_is_refused() -> None:
    """A dashboard needs to know when events happened."""
    from logistream.schema import Column, Schema

    with pytest.raises(RequestError, match="needs the column 'event_time', and the frame has only x"):
        Dashboard(RollingFrame(window=None, schema=Schema((Column("x", "number"),))))


def test_a_saved_notebook_holds_a_picture(bench: Workbench) -> None:
    """The output holds a PNG beside the live view."""
    data, metadata = bench._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    png = base64.b64decode(data["image/png"])
    assert png.startswith(b"\x89PNG")
    assert metadata["image/png"]["width"] == bench.picture().width


def test_the_picture_can_be_read_on_white_and_on_dark(bench: Workbench) -> None:
    """Its ground is transparent and its strokes are neither near white nor near black."""
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(draw_png(bench.picture())))
    assert pixels[2, 2, 3] == 0
    opaque = pixels[pixels[:, :, 3] > 0.9][:, :3] @ [0.2126, 0.7152, 0.0722]
    assert opaque.min() > 0.15
    assert opaque.max() < 0.8
    assert len(opaque) > 2000


def test_an_empty_frame_has_a_picture_too() -> None:
    """A dashboard that is displayed before the first event is waiting for events."""
    frame = RollingFrame()
    board = Dashboard(frame)
    assert board.state() == ("waiting", "for events")
    assert "image/png" in board._repr_mimebundle_()[0]
    board.close()


@pytest.mark.slow
def test_long_axes_draw_without_a_warning(server: StreamServer) -> None:
    """Any span has a picture; warnings are errors here."""
    for span in (1, 30, 300, 3600):
        board = Dashboard(server, span=span, by="Market")
        board._repr_mimebundle_()
        board.close()


def test_closing_ends_the_thread_and_may_be_repeated(bench: Workbench) -> None:
    """After `close` nothing is sent any more."""
    Page(bench).open()
    bench.close()
    bench.close()
    until(lambda: not threads("logistream widget"))


@pytest.mark.slow
def test_a_widget_left_open_ends_with_its_program() -> None:
    """A program that never closes its widgets ends without a word on stderr."""
    program = (
        "import logistream as ls; w = ls.Workbench(rate=100); w.frame.wait(events=500, timeout=90);"
        "w.send = lambda *_: None; w._handle_custom_msg({'kind': 'open', 'view': 'v'}, [])"
    )
    ran = run_python(program, within=240)
    assert (ran.returncode, ran.stderr) == (0, "")
