"""What every reader of a stream shows: its connection, and its position in the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logistream.client.listener import Listener

__all__ = ["Reader"]


class Reader:
    """A base class: it owns a listener, and shows its connection and its position in the stream."""

    _listener: Listener

    @property
    def url(self) -> str:
        """Address of the event socket."""
        return self._listener.subscription.url

    @property
    def connected(self) -> bool:
        """Whether a connection is open now."""
        return self._listener.connected

    @property
    def trouble(self) -> str | None:
        """What is wrong, in one sentence; None after a received message."""
        return self._listener.trouble

    @property
    def cause(self) -> str | None:
        """Why the last attempt to connect failed or the last connection ended, as a phrase."""
        return self._listener.cause

    @property
    def retry_in(self) -> float:
        """Seconds until the next attempt to connect; 0 while connected or connecting."""
        return self._listener.retry_in

    @property
    def reconnects(self) -> int:
        """Connections made after the first one."""
        return self._listener.reconnects

    @property
    def restarts(self) -> int:
        """How often another stream was found in place of the one that was read."""
        return self._listener.position.restarts

    @property
    def missed(self) -> int:
        """Events that the server left out."""
        return self._listener.position.missed

    @property
    def next_number(self) -> int | None:
        """Number of the event that comes next; None before the first connection."""
        return self._listener.position.next_number

    @property
    def next_place(self) -> str | None:
        """The exact `start` with which another process can continue; None before the first connection."""
        place = self._listener.position.place
        return None if place is None else place.short

    @property
    def stream_id(self) -> str | None:
        """Identity of the stream; None before the first connection."""
        return self._listener.position.stream_id

    @property
    def silent_for(self) -> float:
        """Seconds since anything came from the server, be it the answer to a ping."""
        return self._listener.silent_for
