"""Arithmetic of measuring: percentiles, counts that must agree, and the figures of the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import msgspec

Place = tuple[str, str]
"""A machine's name and a key."""

DRAIN_SAMPLES = 10
"""With fewer between its beginning and its end, a drain's time is that of the looks at it."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One row: what was measured and, if it is a comparison, what it is compared with. ``name`` finds its goal."""

    name: str
    value: float
    unit: str
    base: float | None = None
    against: str = ""
    """What ``base`` is: "raw", "many keys", ..."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value to base; None where there is nothing to compare with."""
        return self.value / self.base if self.base else None


class Balance(msgspec.Struct, frozen=True):
    """How what was answered and what is stored agree."""

    answered: int = 0
    lost: int = 0
    """Answered as done, and not in the data."""
    extra: int = 0
    """In the data, and never answered: done twice, or done without an answer."""
    errors: int = 0
    first_error: str = ""

    @property
    def even(self) -> bool:
        return not (self.lost or self.extra or self.errors)


class Ledger:
    """How often each instance was told to be changed, as its callers know it."""

    def __init__(self) -> None:
        self.done: dict[Place, int] = {}
        self.errors = 0
        self.first_error = ""

    @property
    def total(self) -> int:
        return sum(self.done.values())

    def note(self, place: Place) -> None:
        self.done[place] = self.done.get(place, 0) + 1

    def note_error(self, error: Exception) -> None:
        self.errors += 1
        self.first_error = self.first_error or f"{type(error).__name__}: {error}"

    def balance(self, stored: Mapping[Place, int]) -> Balance:
        """``stored``: the count in each instance's data."""
        differences = [stored.get(place, 0) - done for place, done in self.done.items()]
        lost = -sum(d for d in differences if d < 0)
        extra = sum(d for d in differences if d > 0)
        return Balance(self.total, lost, extra, self.errors, self.first_error)


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of them lie, by nearest rank; 0 for none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def middle(values: Iterable[float]) -> float:
    """The median; 0 for none."""
    found = list(values)
    return float(median(found)) if found else 0.0


def drain_rate(samples: Sequence[tuple[float, int]]) -> float | None:
    """Commands a second from the moment when a backlog began to shrink until nothing was left: reading it, too, is part of the work.

    ``samples``: time in s and commands left. None if its end was not seen, or too few samples lie between to tell.
    """
    most = max((left for _, left in samples), default=0)
    began_s = max((at for at, left in samples if left == most), default=0.0)
    ended_s = min((at for at, left in samples if left == 0), default=began_s)
    if sum(began_s < at < ended_s for at, _ in samples) < DRAIN_SAMPLES:
        return None
    return most / (ended_s - began_s)
