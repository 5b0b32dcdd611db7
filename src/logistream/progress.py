"""How far a long computation is, on stderr: a bar in a terminal, a line now and then elsewhere.

Never a widget: those do not last in a saved notebook, and fail where no state of widgets is kept.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["progress_shown"]


_SECONDS_BETWEEN_LINES = 2.0


@contextmanager
def progress_shown(doing: str, steps: int, *, shown: bool = True) -> Iterator[Callable[[], None]]:
    """Give a function to call after each step; it shows how many are done.

    Parameters
    ----------
    doing : str
        What is done, as in "learning".
    steps : int
        How many steps there are.
    shown : bool
        False shows nothing.
    """
    if not shown:
        yield lambda: None
        return
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True, force_jupyter=False), transient=True) as bar:
            task = bar.add_task(doing, total=steps)
            yield lambda: bar.advance(task)
        return
    done, last_line = 0, time.monotonic()

    def advance() -> None:
        nonlocal done, last_line
        done += 1
        if done == steps or time.monotonic() - last_line >= _SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            print(f"{doing}: {done} of {steps} done", file=sys.stderr, flush=True)  # noqa: T201 - requested

    yield advance
