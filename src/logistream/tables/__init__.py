"""Read table files in the forms that people have, and write tables."""

from __future__ import annotations

__all__: list[str] = []
