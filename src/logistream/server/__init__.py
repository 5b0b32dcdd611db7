"""Serve a stream over HTTP and WebSocket."""

from __future__ import annotations

__all__: list[str] = []
