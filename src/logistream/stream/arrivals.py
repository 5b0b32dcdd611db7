"""Where events lie in operational time: evenly, at random, or in bursts, as a function of their numbers.

Operational time runs with the rate: `STEPS` steps of it go by for each event on average, whatever the rate.
Events are placed a section at a time. Each section has the same number of events and the same length, so that
no kind of arrivals drifts from the rate, and any section can be placed without those before it.

The bits are those of a Philox generator whose key is the seed and whose counter starts at the section number
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), as in `logistream.model.sampling`, under
another key. From there on only shifts, sums and sorting of integers, which are the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from logistream.errors import RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BURST", "EVEN", "SECTION", "SPREAD", "STEPS", "ArrivalKind", "Arrivals"]


ArrivalKind = Literal["even", "poisson", "bursts"]
"""Equal distances; a Poisson process; a Poisson cluster process."""

SECTION = 4096
"""Events placed at once; part of what arrivals and a seed mean, so never to be changed."""

STEPS = 1024
"""Steps of operational time for each event on average; never to be changed."""

BURST = 32
"""Events of a burst on average."""

SPREAD = 4096
"""A burst's events lie about its centre like the sum of four uniforms of so many steps each: nearly normal,
with a standard deviation of SPREAD / sqrt(3) steps, which is 2.3 mean distances of events."""

_LENGTH = SECTION * STEPS
_KEY = 0x4152524956414C53  # "ARRIVALS": keeps these bits apart from those that make the events
_TO_LENGTH = np.uint64(64 - 22)  # _LENGTH is 2**22
_TO_HALF_LENGTH = np.uint64(32 - 22)
_LOW_HALF = np.uint64(0xFFFF_FFFF)
_TO_BURST = np.uint64(64 - 7)  # SECTION / BURST is 2**7
_CACHED_SECTIONS = 16


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How the events of a stream follow each other.

    Parameters
    ----------
    kind : {"even", "poisson", "bursts"}
        `even`: all distances are equal. `poisson`: independent of each other, a Poisson process given that
        each section has `SECTION` events. `bursts`: a Neyman-Scott process, events in clusters of `BURST` on
        average with `SPREAD`, the centres at random.
    seed : int
        Which of the possible ones, from 0 to 2**64 - 1; without meaning for `even`.

    Raises
    ------
    RequestError
        For a kind or a seed that does not exist.

    Notes
    -----
    Given how many events of a Poisson process fall into an interval, they are independent uniforms in it
    (Kingman, *Poisson Processes*, 1993, section 2.4). Given the numbers of clusters and of events, those of a
    Neyman-Scott process whose clusters have Poisson sizes are independent too, each in any cluster with equal
    probability (Neyman and Scott, "Statistical approach to problems of cosmology", 1958; with normal
    displacements, as here but for the tails, it is the process of Thomas, 1949). What falls out of its
    section is folded back, which leaves the mean density uniform.

    Examples
    --------
    >>> Arrivals("even").positions(7)[:4].tolist()
    [0, 1024, 2048, 3072]
    >>> Arrivals("poisson", seed=1).positions(7).shape
    (4096,)
    """

    kind: ArrivalKind
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(ArrivalKind):
            raise RequestError(
                f"arrivals must be one of {', '.join(get_args(ArrivalKind))}, not {self.kind!r}"
            )
        seed: object = self.seed
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
            raise RequestError(f"seed must be a whole number from 0 to 2**64 - 1, not {seed!r}")
        object.__setattr__(self, "seed", int(seed))

    def positions(self, section: int) -> NDArray[np.int64]:
        """Return where the events of a section lie, in steps from the beginning of the section.

        Parameters
        ----------
        section : int
            The events are those from number `section * SECTION` on.

        Returns
        -------
        ndarray of int64, shape (SECTION,)
            Sorted, from 0 to `SECTION * STEPS` - 1; read-only, because it is shared.
        """
        return _EVENLY if self.kind == "even" else _positions(self.kind, self.seed, section)

    def position(self, number: int) -> int:
        """Return where an event lies, in steps of operational time since event 0's section began."""
        if self.kind == "even":
            return number * STEPS
        section, place = divmod(number, SECTION)
        return section * _LENGTH + int(self.positions(section)[place])


@lru_cache(maxsize=_CACHED_SECTIONS)
def _positions(kind: ArrivalKind, seed: int, section: int) -> NDArray[np.int64]:
    key, counter = np.array([seed, _KEY], np.uint64), np.array([0, 0, 0, section], np.uint64)
    bits = np.random.Philox(key=key, counter=counter)
    return _shared(_uniform(bits) if kind == "poisson" else _clustered(bits))


def _uniform(bits: np.random.Philox) -> NDArray[np.unsignedinteger]:
    """Return `SECTION` uniform positions; each raw number gives two."""
    raw = bits.random_raw(SECTION // 2)
    places = np.empty(SECTION, np.uint32)
    places[::2] = raw >> _TO_LENGTH
    places[1::2] = (raw & _LOW_HALF) >> _TO_HALF_LENGTH
    return places


def _clustered(bits: np.random.Philox) -> NDArray[np.integer]:
    """Return `SECTION` positions in clusters about `SECTION` / `BURST` uniform centres."""
    centres = (bits.random_raw(SECTION // BURST) >> _TO_LENGTH).astype(np.int64)
    raw = bits.random_raw(SECTION)
    places = centres[(raw >> _TO_BURST).astype(np.int64)]
    for shift in (0, 12, 24, 36):
        places += ((raw >> np.uint64(shift)) & np.uint64(SPREAD - 1)).astype(np.int64)
    places -= 2 * (SPREAD - 1)  # half of the largest sum
    places = np.where(places < 0, -1 - places, places)
    return np.where(places >= _LENGTH, 2 * _LENGTH - 1 - places, places).astype(np.uint32)


def _shared(places: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return positions sorted and read-only."""
    places.sort()
    sorted_ = places.astype(np.int64)
    sorted_.setflags(write=False)
    return sorted_


EVEN = Arrivals("even")
"""All distances equal."""

_EVENLY = _shared(np.arange(SECTION) * STEPS)
