"""Where events lie in operational time."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logistream.errors import RequestError
from logistream.stream.arrivals import BURST, EVEN, SECTION, SPREAD, STEPS, ArrivalKind, Arrivals

LENGTH = SECTION * STEPS
SOME = [EVEN, Arrivals("poisson", 3), Arrivals("bursts", 3)]


def line(arrivals: Arrivals, sections: int) -> np.ndarray:
    """Return the positions of some sections on one line."""
    return np.concatenate([section * LENGTH + arrivals.positions(section) for section in range(sections)])


def dispersion(places: np.ndarray, sections: int, window: int) -> float:
    """Return variance over mean of the counts in windows of so many steps; 1 for a Poisson process."""
    counts = np.histogram(places, np.arange(0, sections * LENGTH + 1, window))[0]
    return float(counts.var() / counts.mean())


@given(st.sampled_from(SOME), st.integers(0, 2**53 // SECTION))
def test_a_section_is_sorted_and_keeps_within_itself(arrivals: Arrivals, section: int) -> None:
    """Whole steps in order, from the section's beginning to its end."""
    places = arrivals.positions(section)
    assert places.shape == (SECTION,)
    assert places.dtype == np.int64
    assert (np.diff(places) >= 0).all()
    assert places[0] >= 0
    assert places[-1] < LENGTH
    assert not places.flags.writeable


@given(st.sampled_from(SOME), st.integers(0, 2**53))
def test_a_position_is_that_in_its_section(arrivals: Arrivals, number: int) -> None:
    """One event's place is found in its section."""
    section, place = divmod(number, SECTION)
    assert arrivals.position(number) == section * LENGTH + int(arrivals.positions(section)[place])


def test_even_arrivals_are_evenly_spaced() -> None:
    """Event after event at the same distance, through the ends of sections too."""
    np.testing.assert_array_equal(line(EVEN, 3), np.arange(3 * SECTION) * STEPS)


def test_poisson_gaps_are_exponential() -> None:
    """A Kolmogorov-Smirnov test at the level 0.001 against the exponential distribution."""
    gaps = np.sort(np.diff(line(Arrivals("poisson", 11), 25))) / STEPS
    expected = -np.expm1(-gaps)
    observed = np.arange(len(gaps) + 1) / len(gaps)
    distance = max(np.abs(expected - observed[1:]).max(), np.abs(expected - observed[:-1]).max())
    assert distance < 1.95 / np.sqrt(len(gaps))


def test_poisson_gaps_do_not_depend_on_each_other() -> None:
    """A wait does not depend on the one before."""
    gaps = np.diff(line(Arrivals("poisson", 11), 25))
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 3.5 / np.sqrt(len(gaps))


def test_poisson_counts_are_as_dispersed_as_a_poisson_process() -> None:
    """The variance of the counts is their mean, less what the fixed number in a section takes."""
    places = line(Arrivals("poisson", 5), 50)
    assert dispersion(places, 50, 64 * STEPS) == pytest.approx(1 - 64 / SECTION, abs=0.1)


def test_bursts_are_bursts() -> None:
    """Counts are dispersed as in a cluster process: by one and the mean size of a cluster."""
    places = line(Arrivals("bursts", 5), 50)
    assert dispersion(places, 50, 256 * STEPS) == pytest.approx(1 + BURST, rel=0.25)
    # Half of all events come in the sixth of the time that is the busiest.
    counts = np.sort(np.histogram(places, np.arange(0, 50 * LENGTH + 1, 4 * STEPS))[0])[::-1]
    assert counts[: len(counts) // 6].sum() > counts.sum() / 2


@pytest.mark.slow
def test_bursts_have_the_documented_spread() -> None:
    """Pairs of events within a burst differ as sums of four uniforms do."""
    places = line(Arrivals("bursts", 5), 50)
    near = np.histogram(
        np.concatenate([places[k:] - places[:-k] for k in range(1, 200)]), 40, (0, 6 * SPREAD)
    )[0].astype(float)
    alone = near[-12:].mean()  # from 4 spreads on no two events are of one burst
    excess, middles = near - alone, (np.arange(40) + 0.5) * 6 * SPREAD / 40
    spread = np.sqrt((excess * middles**2).sum() / excess.sum() / 2)
    assert spread == pytest.approx(SPREAD / np.sqrt(3), rel=0.15)


@pytest.mark.parametrize("kind", ["poisson", "bursts"])
def test_no_part_of_a_section_is_denser_than_another(kind: ArrivalKind) -> None:
    """Folding at the ends of a section leaves as many events there as in its middle."""
    arrivals = Arrivals(kind, 8)
    sections, parts = 400, 64
    counts = np.zeros(parts)
    for section in range(sections):
        counts += np.histogram(arrivals.positions(section), parts, (0, LENGTH))[0]
    mean = sections * SECTION / parts
    dispersed = 1 + BURST if kind == "bursts" else 1
    assert ((counts - mean) ** 2 / (mean * dispersed)).sum() < 112  # chi-squared, 63 degrees, 0.9999


@pytest.mark.parametrize(
    ("kind", "section", "first", "digest"),
    [
        ("poisson", 0, [319, 714, 1946, 2151], "20db0870e89821acbd2d8170db7bf88b"),
        ("poisson", 2**40, [3114, 3448, 3463, 5119], "ea253b1ba35b3dc444b60d304e6267ce"),
        ("bursts", 0, [36460, 37647, 38678, 39098], "84e6f1bb1222c245a4416c7b9aa20e5a"),
        ("bursts", 30, [273, 285, 331, 345], "01528a20211588273b1e841b25a97dfd"),  # folded at both ends
        ("bursts", 2**40, [13220, 13909, 14047, 14240], "fb2569c1c584b2914074a110ba6f892a"),
    ],
)
def test_positions_are_for_ever(kind: ArrivalKind, section: int, first: list[int], digest: str) -> None:
    """What a seed means never changes, on no machine and in no version."""
    places = Arrivals(kind, 2**64 - 1).positions(section)
    assert places[:4].tolist() == first
    assert hashlib.sha256(places.astype("<i8").tobytes()).hexdigest()[:32] == digest


def test_seeds_and_sections_differ() -> None:
    """Another seed or section is another draw."""
    drawn = [Arrivals("poisson", seed).positions(section) for seed in (0, 1) for section in (0, 1)]
    assert len({places.tobytes() for places in drawn}) == 4


def test_sections_are_the_same_in_any_order_and_from_any_thread() -> None:
    """What is kept of sections made before is not visible."""
    arrivals = Arrivals("bursts", 9)
    once = {section: arrivals.positions(section).tobytes() for section in range(64)}
    wrong: list[int] = []

    def read(seed: int) -> None:
        sections = np.random.default_rng(seed).integers(0, 64, 500).tolist()
        wrong.extend(b for b in sections if Arrivals("bursts", 9).positions(b).tobytes() != once[b])

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("kind", "seed", "sentence"),
    [
        ("steady", 0, "arrivals must be one of even, poisson, bursts, not 'steady'"),
        (None, 0, "arrivals must be one of even, poisson, bursts, not None"),
        ("even", -1, "seed must be a whole number from 0 to 2**64 - 1, not -1"),
        ("poisson", 2**64, f"seed must be a whole number from 0 to 2**64 - 1, not {2**64}"),
        ("poisson", True, "seed must be a whole number from 0 to 2**64 - 1, not True"),
    ],
)
def test_what_does_not_exist_is_refused(kind: ArrivalKind, seed: int, sentence: str) -> None:
    """The sentence lists what there is."""
    with pytest.raises(RequestError) as caught:
        Arrivals(kind, seed)
    assert str(caught.value) == sentence
