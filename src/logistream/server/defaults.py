"""How much callers may request of a server if nothing else is said; without imports, for the command line."""

from __future__ import annotations

__all__ = ["CATCH_UP", "CATCH_UP_TOTAL", "CLIENTS", "OTHER_CONNECTIONS"]

CLIENTS = 1000
"""Readers at a time."""

OTHER_CONNECTIONS = 1000
"""Connections at a time, besides those of readers."""

CATCH_UP, CATCH_UP_TOTAL = 2_000_000, 4_000_000
"""Events per second for a reader that catches up with the past, and for all of them together."""
