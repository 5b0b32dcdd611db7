"""The learned network, and rows drawn from it."""

from __future__ import annotations

__all__: list[str] = []
