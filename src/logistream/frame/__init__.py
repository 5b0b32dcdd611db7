"""Keep the newest events of a stream as a pandas DataFrame."""

from __future__ import annotations

__all__: list[str] = []
