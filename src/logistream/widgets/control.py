"""Steer a stream from a widget: a server of this process, or any other over HTTP.

Both return the settings in force and the timeline, and set rate, pause, scenarios and faults. If the server
refuses a value, its message is passed on.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from logistream.client.ranges import opener_for
from logistream.errors import RequestError, StreamError
from logistream.model.scenario import Scenario, read_scenarios
from logistream.stream.arrivals import Arrivals
from logistream.stream.faults import read_faults
from logistream.stream.timeline import Entry, Timeline
from logistream.urls import is_loopback, websocket_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from logistream.server.server import StreamServer
    from logistream.stream.faults import Fault

__all__ = ["Control", "LocalControl", "RemoteControl", "Settings"]


_TIMEOUT = 3.0  # seconds that a server may take to answer
_DECISIVE = ("rate", "paused", "scenarios", "faults", "started", "seed", "model")  # for the timeline
_LOOK_EVERY = 0.5  # seconds between requests to a server elsewhere


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a stream.

    Attributes
    ----------
    reachable : bool
        Whether the server answered the last request; the other fields are the last known.
    rate : float
        Events per second.
    paused : bool
        Whether the stream is paused.
    scenarios : tuple of Scenario
        The scenarios in force.
    faults : tuple of Fault or None
        The faults of the wire in force; None if the server knows none.
    next_number : int
        Number of the next event.
    clients : int or None
        Readers of the WebSocket, if known.
    """

    reachable: bool
    rate: float
    paused: bool
    scenarios: tuple[Scenario, ...]
    faults: tuple[Fault, ...] | None
    next_number: int
    clients: int | None


class Control(Protocol):
    """A stream that can be steered."""

    @property
    def url(self) -> str:
        """HTTP address of the server, with a token if it demands one."""

    @property
    def same_clock(self) -> bool:
        """Whether the server reads the clock of this machine."""

    def look(self) -> Settings | None:
        """Return what is in force; None before the first answer. Never blocks."""

    def timeline(self) -> Timeline | None:
        """Return when the events happen, as far as known. Never blocks."""

    def known_scenarios(self) -> tuple[tuple[Scenario, str], ...]:
        """Return the named scenarios that the server has, each with a sentence what it does."""

    def change(
        self,
        *,
        rate: float | None = None,
        paused: bool | None = None,
        scenarios: Iterable[Scenario] | None = None,
        faults: Iterable[Fault] | None = None,
    ) -> None:
        """Set rate, pause, scenarios or faults; an empty list ends those in force.

        Raises
        ------
        RequestError
            With the server's message, for a value that it refuses.
        StreamError
            If the server cannot be reached.
        """

    def close(self) -> None:
        """Stop the requests."""


class LocalControl:
    """A server of this process."""

    same_clock = True

    def __init__(self, server: StreamServer) -> None:
        self.server = server

    @property
    def url(self) -> str:
        """HTTP address, with a token if there is one."""
        return self.server.url

    def look(self) -> Settings:
        """Return what is in force."""
        server = self.server
        state = server.state
        return Settings(
            reachable=server.running,
            rate=float(server.rate),
            paused=bool(server.paused),
            scenarios=server.scenario,
            faults=server.faults,
            next_number=int(state["next_event_number"]),
            clients=server.connected_clients,
        )

    def timeline(self) -> Timeline:
        """Return when the events happen."""
        return self.server.timeline

    def known_scenarios(self) -> tuple[tuple[Scenario, str], ...]:
        """Return the named scenarios that the server has."""
        return self.server.known_scenarios

    def change(
        self,
        *,
        rate: float | None = None,
        paused: bool | None = None,
        scenarios: Iterable[Scenario] | None = None,
        faults: Iterable[Fault] | None = None,
    ) -> None:
        """Set rate, pause, scenarios or faults."""
        if not self.server.running:
            raise StreamError("the server is stopped: start it again with server.start()")
        if rate is not None:
            self.server.rate = rate
        if paused is not None:
            self.server.paused = paused
        if scenarios is not None:
            self.server.scenario = scenarios
        if faults is not None:
            self.server.faults = faults

    def close(self) -> None:
        """Do nothing; the server belongs to someone else."""


class RemoteControl:
    """A server that is reached over HTTP; a thread asks it twice a second while somebody looks.

    Parameters
    ----------
    url : str
        `http://host:port` or `ws://host:port/ws`, with `?token=…` if one is demanded.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(websocket_url(url))
        scheme = {"ws": "http", "wss": "https"}[parts.scheme]
        path = parts.path.rpartition("/")[0]
        token = dict(parse_qsl(parts.query)).get("token")
        self._base = urlunsplit((scheme, parts.netloc, path, "", ""))
        self._token = token
        self.url = self._base if token is None else f"{self._base}?token={quote(token)}"
        self.same_clock = is_loopback(parts.hostname or "")
        self._settings: Settings | None = None
        self._seen_at = 0.0
        self._requests = itertools.count(1)
        self._noted = 0  # the request whose answer the settings are
        self._timeline: Timeline | None = None
        self._scenarios: tuple[tuple[Scenario, str], ...] = ()
        self._known: tuple[Any, ...] = ()
        self._looked = 0.0  # when `look` was last called; the thread ends when that is long ago
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def look(self) -> Settings | None:
        """Return the last answer of the server."""
        with self._lock:
            self._looked = time.monotonic()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._ask, name="logistream control", daemon=True)
                self._thread.start()
            return self._settings

    def timeline(self) -> Timeline | None:
        """Return the timeline in the last answer of the server."""
        return self._timeline

    def known_scenarios(self) -> tuple[tuple[Scenario, str], ...]:
        """Return the named scenarios in the last answer of the server."""
        return self._scenarios

    def change(
        self,
        *,
        rate: float | None = None,
        paused: bool | None = None,
        scenarios: Iterable[Scenario] | None = None,
        faults: Iterable[Fault] | None = None,
    ) -> None:
        """Set rate, pause, scenarios or faults."""
        forms = None if scenarios is None else [scenario.to_json() for scenario in scenarios]
        wrong = None if faults is None else [fault.to_json() for fault in faults]
        wanted = {"rate": rate, "paused": paused, "scenario": forms, "faults": wrong}
        body = json.dumps({name: value for name, value in wanted.items() if value is not None}).encode()
        answer = json.loads(self._request("/stream", method="PATCH", body=body))
        self._note(answer, next(self._requests))  # an answer to what was asked before may be from before it

    def close(self) -> None:
        """End the thread, and wait for a request that it has sent."""
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_TIMEOUT)

    def _ask(self) -> None:
        self._known = ()  # since the thread before, settings may have changed and changed back
        while not self._closed and time.monotonic() - self._looked < 10 * _LOOK_EVERY:
            try:
                number = next(self._requests)
                self._note(json.loads(self._request("/stream")), number)
            except (StreamError, RequestError, ValueError, KeyError):
                self._lose()
            self._wake.wait(_LOOK_EVERY)
        with self._lock:
            self._thread = None

    def _note(self, state: Mapping[str, Any], number: int) -> None:
        """Keep the answer to request `number`, unless that to a later one is there already."""
        clients = json.loads(self._request("/"))["connected_clients"]
        known = tuple(state.get(name) for name in _DECISIVE)
        if known != self._known:
            answer = json.loads(self._request("/timeline"))
            arrivals = Arrivals(answer["arrivals"], answer["seed"])
            self._timeline = Timeline([Entry.from_json(entry) for entry in answer["entries"]], arrivals)
            self._scenarios = tuple(
                (Scenario.from_json(each["scenario"]), each["description"])
                for each in json.loads(self._request("/scenarios"))
            )
            self._known = known
        settings = Settings(
            reachable=True,
            rate=float(state["rate"]),
            paused=bool(state["paused"]),
            scenarios=read_scenarios(state["scenarios"]),
            faults=read_faults(state["faults"]) if "faults" in state else None,
            next_number=int(state["next_event_number"]),
            clients=int(clients),
        )
        with self._lock:
            if number > self._noted:
                self._noted, self._settings, self._seen_at = number, settings, time.monotonic()

    def _lose(self) -> None:
        """Go on counting the events that happen while the server does not answer."""
        self._known = ()  # meanwhile settings may change and change back
        last = self._settings
        if last is None:
            return
        now = time.monotonic()
        happened = 0 if last.paused else round((now - self._seen_at) * last.rate)
        self._seen_at = now
        self._settings = replace(last, reachable=False, next_number=last.next_number + happened, clients=None)

    def _request(self, path: str, *, method: str = "GET", body: bytes | None = None) -> bytes:
        return _http(self._base + path, self._token, method=method, body=body)


def _http(url: str, token: str | None, *, method: str = "GET", body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, method=method)  # noqa: S310 - http or https, see websocket_url
    if body is not None:
        request.add_header("Content-Type", "application/json")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with opener_for(url).open(request, timeout=_TIMEOUT) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        raise RequestError(_refusal(error)) from None
    except (OSError, HTTPException) as error:  # the latter for an answer that is cut off
        reason = getattr(error, "reason", None) or error
        raise StreamError(f"the server cannot be reached: {reason}") from None


def _refusal(error: urllib.error.HTTPError) -> str:
    """Return the server's message in an answer other than 200, and close it."""
    try:
        with error:
            return str(json.loads(error.read())["detail"])
    except (ValueError, KeyError, TypeError, OSError, HTTPException):
        return f"the server answers {error.code} {error.reason}"
