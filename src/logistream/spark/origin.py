"""Where the events of a data source come from, as Spark's readers see it: offsets, and spans of events.

Nothing here needs Spark. Spark pickles an origin and uses it in several processes: to plan on the driver, and
to read on the executors. So an origin holds settings, and no connection or open file.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from logistream.errors import RequestError, shorten
from logistream.model.sampling import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pyarrow as pa

    from logistream.schema import Schema

__all__ = ["Offset", "Options", "Origin", "Span", "split"]


Offset: TypeAlias = dict[str, Any]
"""A place in a stream, as a checkpoint keeps it: `stream` is its identity, `first` and `next` are the numbers
of the events with which the query began and continues."""


@dataclass(frozen=True, slots=True)
class Span:
    """The events that one task reads.

    Attributes
    ----------
    first, stop : int
        Event numbers, `stop` excluded.
    known : mapping of str to Any
        What else the task has to know.
    """

    first: int
    stop: int
    known: Mapping[str, Any] = field(default_factory=dict)


class Origin(ABC):
    """What both data sources have in common."""

    @property
    @abstractmethod
    def schema(self) -> Schema:
        """The columns."""

    @abstractmethod
    def begin(self) -> Offset:
        """Return where a new query begins."""

    @abstractmethod
    def mark(self) -> int:
        """Return the present, in the form that `newest` takes."""

    @abstractmethod
    def newest(self, offset: Offset, mark: int | None = None) -> int | None:
        """Return the number after the newest event of the stream of an offset.

        Parameters
        ----------
        offset : Offset
            Where the query is.
        mark : int, optional
            What `mark` returned: the newest event then.

        Returns
        -------
        int or None
            None if it cannot be found out now.
        """

    @abstractmethod
    def finished(self) -> tuple[Offset, int]:
        """Return the beginning of what a batch query reads, and the event number before which it ends."""

    @abstractmethod
    def spans(self, offset: Offset, stop: int, parts: int) -> list[Span]:
        """Return the events from an offset to `stop` (exclusive) as at most `parts` spans."""

    @abstractmethod
    def read(self, span: Span, *, patient: bool) -> Iterator[pa.RecordBatch]:
        """Give the events of a span; `patient` tries again for as long as it takes."""


def split(first: int, stop: int, parts: int) -> list[tuple[int, int]]:
    """Cut a range of events into at most `parts` of nearly equal length, at the ends of blocks.

    No block is then drawn by two tasks.

    Examples
    --------
    >>> split(100, 20_000, 2)
    [(100, 12288), (12288, 20000)]
    >>> split(5, 5, 2)
    []
    """
    low, high = first // BLOCK, math.ceil(stop / BLOCK)
    edges = [BLOCK * (low + math.ceil((high - low) * part / parts)) for part in range(1, parts)]
    cuts = [first, *edges, stop]
    return [(a, b) for a, b in zip(cuts, [min(cut, stop) for cut in cuts[1:]], strict=False) if a < b]


class Options:
    """The options of a query, which are strings; each is read by its name, without regard to case.

    Parameters
    ----------
    given : mapping of str to str
        As Spark hands them over.
    known : iterable of str
        Names that the data source understands.

    Raises
    ------
    RequestError
        For a name that is not known.
    """

    def __init__(self, given: Mapping[str, str], known: Iterable[str]) -> None:
        names = {name.lower(): name for name in known}
        if unknown := [name for name in given if name.lower() not in names]:
            raise RequestError(f"no option {unknown[0]!r}: there are {', '.join(names.values())}")
        self._given = {name.lower(): value for name, value in given.items()}

    def string(self, name: str) -> str | None:
        """Return the value of an option, None if it is not given."""
        return self._given.get(name.lower())

    def whole(self, name: str, least: int = 0) -> int | None:
        """Return a whole number; `RequestError` for anything else."""
        value = self._given.get(name.lower())
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) <= 20 and int(value) >= least):
            raise RequestError(
                f"option {name} must be a whole number of at least {least}, not {shorten(value)!r}"
            )
        return int(value)

    def number(self, name: str) -> float | None:
        """Return a number; `RequestError` for anything else."""
        value = self._given.get(name.lower())
        try:
            return None if value is None else float(value)
        except ValueError:
            raise RequestError(f"option {name} must be a number, not {shorten(value or '')!r}") from None

    def strings(self, name: str) -> list[str]:
        """Return the strings of an option that is one of them, or a JSON array."""
        value = self._given.get(name.lower())
        if value is None:
            return []
        if not value.lstrip().startswith("["):
            return [value]
        try:
            found = json.loads(value)
        except ValueError:
            found = None
        if not (isinstance(found, list) and all(isinstance(each, str) for each in found)):
            raise RequestError(f"option {name} must be one string or a JSON array of strings, not {value!r}")
        return found
