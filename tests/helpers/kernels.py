"""Kernels that are reached through sockets in a folder.

A kernel on TCP is given ports that were free a moment before: another test may have taken one of them.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["kernel_options"]


@contextmanager
def kernel_options() -> Iterator[dict[str, Any]]:
    """Give arguments of a kernel manager, and remove the folder in the end."""
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:  # the name of a socket must be short
        file = str(Path(folder) / "kernel.json")
        yield {"transport": "ipc", "connection_file": file}
