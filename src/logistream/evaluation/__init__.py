"""Measure how close synthetic rows are to real ones."""

from __future__ import annotations

__all__: list[str] = []
