"""Learn a `Model` from a DataFrame."""

from __future__ import annotations

__all__: list[str] = []
