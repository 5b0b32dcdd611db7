"""The widgets without a browser: setting a value has its effect, and nothing is left behind."""

from __future__ import annotations

import base64
import gc
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from helpers.waiting import until
from logistream.errors import RequestError
from logistream.frame.frame import RollingFrame
from logistream.widgets import ControlPanel, Dashboard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.server.server import StreamServer


@pytest.fixture
def panel(server: StreamServer) -> Iterator[ControlPanel]:
    """Give a panel of a running server."""
    panel = ControlPanel(server)
    yield panel
    panel.close()


@pytest.fixture
def frame(server: StreamServer) -> Iterator[RollingFrame]:
    """Give a frame that follows a running server and has some events."""
    frame = RollingFrame()
    with frame.follow(server.websocket_url):
        assert frame.wait(events=20)
        yield frame


@pytest.fixture
def board(frame: RollingFrame, server: StreamServer) -> Iterator[Watched]:
    """Give a dashboard of a frame that is being filled."""
    board = Watched(frame, server)
    yield board
    board.close()


class Watched(Dashboard):
    """A dashboard that keeps what it sends to the browser."""

    sent: list[tuple[dict[str, Any], list[bytes]]]

    def send(self, content: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        """Keep a message."""
        if not hasattr(self, "sent"):
            self.sent = []
        self.sent.append((content, buffers or []))

    def look(self, view: str = "v", *, open: bool = True) -> None:  # noqa: A002 - the key of the message
        """Do as a browser does when a view opens or closes."""
        self._handle_custom_msg({"view": view, "open": open}, [])


def threads(name: str) -> list[threading.Thread]:
    """Return the widget threads of this name."""
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_moving_the_slider_sets_the_rate(panel: ControlPanel, server: StreamServer) -> None:
    """The value of the slider becomes the rate of the server at once."""
    panel.rate.value = 7
    assert server.rate == 7


@pytest.mark.parametrize(("step", "meant"), [(0.3, 2), (0.4, 2.5), (1.7, 50), (2.9, 790), (-1, 0.1)])
def test_slider_steps_are_round_rates(
    panel: ControlPanel, server: StreamServer, step: float, meant: float
) -> None:
    """A position of the logarithmic slider means the round number that it shows."""
    panel.rate.value = 10**step
    assert server.rate == meant


def test_a_rate_given_by_a_program_is_kept_as_it_is(panel: ControlPanel, server: StreamServer) -> None:
    """Only positions of the slider are rounded."""
    panel.rate.value = 123.4
    assert server.rate == 123.4


def test_the_slider_follows_the_server(panel: ControlPanel, server: StreamServer) -> None:
    """A rate or pause set elsewhere moves the panel, even beyond the end of the slider."""
    server.rate, server.paused = 5000, True
    until(lambda: panel.rate.value == 5000 and panel.pause.value)
    assert panel.pause.description == "Resume"
    assert server.rate == 5000


def test_the_button_pauses_and_resumes(panel: ControlPanel, server: StreamServer) -> None:
    """Pressed is paused, and the label says what the next press does."""
    panel.pause.value = True
    assert (server.paused, panel.pause.description) == (True, "Resume")
    panel.pause.value = False
    assert (server.paused, panel.pause.description) == (False, "Pause")


def test_the_status_line_tells_state_clients_and_address(panel: ControlPanel, server: StreamServer) -> None:
    """The line under the slider is kept fresh by itself and ends with the server."""
    assert "running" in panel.status.value
    frame = RollingFrame()
    with frame.follow(server.websocket_url):
        until(lambda: "1 client" in panel.status.value)
    assert server.websocket_url in panel.status.value
    server.stop()
    until(lambda: "stopped" in panel.status.value)
    assert panel.rate.disabled
    until(lambda: not threads("logistream panel"))


def test_closing_a_panel_ends_its_thread(server: StreamServer) -> None:
    """No thread watches for a panel that is gone, and the server goes on."""
    panel = ControlPanel(server)
    panel.close()
    until(lambda: not threads("logistream panel"))
    assert server.running


def test_a_view_gets_a_picture_at_once_and_then_new_ones(board: Watched) -> None:
    """The first picture answers the view that opens; more come as events do."""
    board.look()
    head, (lines, groups) = board.sent[0]
    assert head["total"] >= 20
    assert len(np.frombuffer(lines)) % 6 == 0
    assert len(np.frombuffer(groups)) == 2 * len(head["labels"])
    until(lambda: board.sent[-1][0]["total"] > head["total"])
    assert board.sent[-1][0]["state"] == "live"


def test_the_lines_show_measured_and_asked_rate(board: Watched, server: StreamServer) -> None:
    """Both rates of a steady stream are the one that was asked for."""
    until(lambda: np.isfinite(board.picture().series.rate).sum() > 4)
    picture = board.picture()
    assert picture.asked[-1] == server.rate
    assert picture.series.rate[-1] == pytest.approx(server.rate, rel=0.01)


def test_nothing_is_drawn_when_nobody_looks(board: Watched) -> None:
    """The drawing thread ends with the last view and starts again with the next."""
    board.look("a")
    board.look("b")
    board.look("a", open=False)
    assert threads("logistream dashboard")
    board.look("b", open=False)
    until(lambda: not threads("logistream dashboard"))
    board.look("c")
    assert threads("logistream dashboard")


def test_a_farewell_that_overtakes_its_greeting_is_final(board: Watched) -> None:
    """Messages of a view may come in either order: they can take two channels to the kernel."""
    board.look("a", open=False)
    board.look("a")
    until(lambda: not threads("logistream dashboard"))


def test_a_paused_stream_is_shown_as_paused(board: Watched, server: StreamServer) -> None:
    """A pause shows as a state, and as an asked rate of 0."""
    server.paused = True
    until(lambda: board.picture().asked[-1] == 0)
    assert board.picture().state == "paused"


def test_the_chart_stands_still_when_nothing_can_come(server: StreamServer) -> None:
    """Without a follower the time axis ends at the newest event."""
    frame = RollingFrame()
    with frame.follow(server.websocket_url):
        frame.wait(events=5)
    with_end = Dashboard(frame)
    first, second = with_end.picture(), with_end.picture()
    assert first.state == second.state == "stopped"
    assert first.series.time[-1] == second.series.time[-1]
    with_end.close()


def test_a_dashboard_does_not_keep_its_frame_alive(server: StreamServer) -> None:
    """A frame that nobody holds any more is not fed for the sake of a chart."""
    frame = RollingFrame()
    follower = frame.follow(server.websocket_url)
    frame.wait(events=5)
    board = Dashboard(frame, server)
    seen = board.picture().total
    del frame
    gc.collect()
    until(lambda: not follower.running)
    assert board.picture().total >= seen
    assert board.picture().state == "stopped"
    board.close()


def test_a_saved_notebook_holds_a_picture(board: Watched) -> None:
    """Beside the live view stands a PNG, which is drawn wherever widgets cannot live."""
    data, _ = board._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_an_empty_frame_has_a_picture_too() -> None:
    """A dashboard that is displayed before the first event says so instead of failing."""
    frame = RollingFrame()
    board = Dashboard(frame)
    assert board.picture().state == "waiting"
    assert "image/png" in board._repr_mimebundle_()[0]
    board.close()


def test_closing_ends_the_thread_and_may_be_repeated(board: Watched) -> None:
    """After `close` nothing is drawn any more."""
    board.look()
    board.close()
    board.close()
    assert not threads("logistream dashboard")


def test_scripts_and_styles_need_nothing_from_elsewhere() -> None:
    """All that the browser runs is in the package: no import, no fetch, no address but in comments."""
    script = "\n".join(
        line for line in str(Dashboard._esm).splitlines() if not line.startswith(("/*!", "//"))
    )
    assert "http" not in script
    assert "import" not in script
    assert "http" not in str(Dashboard._css)
    assert "@import" not in str(Dashboard._css)


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"share": "Sales"}, "share needs a column of 0/1 or true/false, and 'Sales' is a number"),
        ({"by": "Sales"}, "by needs a category column, and 'Sales' is a number"),
        ({"span": 0.1}, "span must be from 1 to 3600 seconds, not 0.1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(choice: dict[str, Any], sentence: str) -> None:
    """Columns of the wrong kind and impossible spans are named."""
    frame = RollingFrame()
    with pytest.raises(RequestError) as caught:
        Dashboard(frame, **choice)
    assert str(caught.value) == sentence
