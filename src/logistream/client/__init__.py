"""Read a stream over WebSocket: connect, reconnect, and resume with the next event."""

from __future__ import annotations

__all__: list[str] = []
