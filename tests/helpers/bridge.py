"""`logistream bridge` as users run it: in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["bridge"]


@contextmanager
def bridge(url: str, *options: str) -> Iterator[int]:
    """Run it and give the port on which it listens."""
    command = [sys.executable, "-m", "logistream", "bridge", url, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().split(",")[0].rpartition(":")[2])
        finally:
            process.kill()
