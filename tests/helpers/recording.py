"""Readers of numbered events that write down what came and when, to be judged afterwards.

One thread reads all the sockets and does nothing else, so that what it measures is the server.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Self

import numpy as np

from helpers.wire import BINARY, PONG, TEXT, Frame, Frames, Peer, frame

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SMALL", "Recorder", "Seen", "numbers_in"]

SMALL = "?format=ndjson&numbered=true&columns=event_time"
"""Asks for many events in few bytes."""

_LINE = re.compile(rb'\{"event_time":"([^"]{27})","event_number":(\d+)\}\n')

_ASKS, _ASKED = b"\x89\x0cread", 14
"""How a ping begins that asks how far a reader has read, and its bytes."""


@dataclass(frozen=True)
class Seen:
    """What one reader has seen.

    Attributes
    ----------
    first, stop : int
        It has got every event number from `first` on and before `stop`, once and in order.
    silence : float
        Longest time between two messages, in seconds.
    delays : list of float
        For each message, seconds from its first event's time to its arrival.
    """

    first: int
    stop: int
    silence: float
    delays: list[float]

    def late(self, share: float) -> float:
        """Return the delay in seconds that so great a share of the messages has not exceeded."""
        return float(np.quantile(self.delays, share))


class Recorder:
    """Reads some sockets on a thread of its own; a context manager.

    Parameters
    ----------
    peers : sequence of Peer
        Connected, with the query `SMALL`.
    """

    def __init__(self, peers: Sequence[Peer]) -> None:
        self._peers = list(peers)
        self._came: list[list[tuple[float, bytes]]] = [[(time.time(), peer.early)] for peer in peers]
        self._wake, self._asleep = os.pipe()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder")
        self.received = 0
        self._ends = [peer.early for peer in peers]  # a frame may be cut

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop reading; harmless if called again."""
        if not self._stopping.is_set():
            self._stopping.set()
            os.write(self._asleep, b"x")
            self._thread.join()
            os.close(self._asleep)
            os.close(self._wake)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            for index, peer in enumerate(self._peers):
                selector.register(peer.socket, selectors.EVENT_READ, index)
            while not self._stopping.is_set():
                for key, _ in selector.select():
                    if key.data is None:
                        continue
                    received = self._peers[key.data].socket.recv(1 << 18)
                    if received:
                        self._came[key.data].append((time.time(), received))
                        self.received += len(received)
                        self._answer(key.data, received)
                    else:
                        selector.unregister(key.fileobj)

    def _answer(self, index: int, received: bytes) -> None:
        """Answer the last ping that asks how far a reader has read, as clients do; frames are not parsed."""
        data = self._ends[index] + received
        self._ends[index] = data[1 - _ASKED :]
        place = data.rfind(_ASKS)
        if place >= 0 and place + _ASKED <= len(data):
            with contextlib.suppress(OSError):  # the server may have closed the connection
                self._peers[index].send(frame(PONG, data[place + 2 : place + _ASKED]))

    def frames(self, index: int = 0) -> list[tuple[float, Frame]]:
        """Return the frames that a reader has got, with the time when each was complete."""
        frames = Frames()
        return [(when, made) for when, received in self._came[index] for made in frames.feed(received)]

    def seen(self, index: int = 0) -> Seen:
        """Stop reading and judge what a reader has got; an AssertionError for a gap or a repeat."""
        self.stop()
        times, numbers, delays = [], [], []
        for when, made in self.frames(index):
            if made.opcode not in (TEXT, BINARY):
                continue
            lines = _LINE.findall(made.payload)
            assert (
                b"".join(b'{"event_time":"%s","event_number":%s}\n' % line for line in lines) == made.payload
            )
            times.append(when)
            delays.append(when - datetime.fromisoformat(lines[0][0].decode()).timestamp())
            numbers += [int(number) for _, number in lines]
        assert numbers, "no event came"
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), "a gap or a repeat"
        return Seen(numbers[0], numbers[-1] + 1, max(np.diff(times), default=0.0), delays)


def numbers_in(lines: bytes) -> list[int]:
    """Return the event numbers in lines of JSON, in order; `event_number` is the last key."""
    return [int(number) for number in re.findall(rb'"event_number":(\d+)\}\n', lines)]
