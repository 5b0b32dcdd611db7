"""Where a reader begins: the place among the deliveries that its request means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from logistream.stream.query import Place

if TYPE_CHECKING:
    from logistream.stream.query import Begin
    from logistream.stream.stream import Stream

__all__ = ["first_place"]


def first_place(stream: Stream, start: Begin, *, faults: bool) -> Place:
    """Return the place at which a reader begins.

    Parameters
    ----------
    start : Begin
        As it was requested.
    faults : bool
        Whether the faults of the wire act on what the reader gets.

    Raises
    ------
    RequestError
        If it is before the first event.
    NotYetError
        If it has not happened and will not within seconds.
    """
    if not isinstance(start, Place):
        return Place(stream.resolve(start))
    slot = stream.resolve(start.slot)
    if faults and stream.has_faults(slot, slot + 1):
        return start
    return Place(stream.resolve(slot + 1))  # there is only the delivery with index 0
