"""What a sink should hold: its rows compared with the stream that they came from."""

from __future__ import annotations

__all__: list[str] = []
