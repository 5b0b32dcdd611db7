"""Which event happens when, and as which bytes."""

from __future__ import annotations

__all__: list[str] = []
