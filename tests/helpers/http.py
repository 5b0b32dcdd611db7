"""Calls of httpx2 that leave a busy machine time; its own limit is five seconds."""

from __future__ import annotations

from functools import partial

import httpx2

__all__ = ["WAIT", "get", "options", "patch", "stream"]

WAIT = 60.0
"""Seconds."""

get = partial(httpx2.get, timeout=WAIT)
options = partial(httpx2.options, timeout=WAIT)
patch = partial(httpx2.patch, timeout=WAIT)
stream = partial(httpx2.stream, timeout=WAIT)
