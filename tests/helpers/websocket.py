"""The synchronous client of the websockets library, for readers that do not get in the way of a test."""

from __future__ import annotations

from functools import partial

from websockets.sync import client

__all__ = ["FEW", "connect"]

FEW = 16
"""Messages that the library reads ahead of its user by itself: then it stops to read the connection."""

connect = partial(client.connect, open_timeout=60, max_queue=None)
"""Connect; what is not read hinders no closing, which would otherwise wait for ten seconds."""
