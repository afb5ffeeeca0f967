"""How soon a partition may be taken again whose tenures end soon after they began, so that no cause makes them turn in a hot loop."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")

SOON_S = 3.0
"""A tenure that lasted longer has done some work; what ended it has nothing to do with what ended those before."""

FREE = 2
"""So many tenures in a row may end soon without a pause: a failover, a bad command that is found out, a share that changed."""

FIRST_S, CAP_S = 0.05, 5.0


class Pacing(Generic[K]):
    """One worker's tenures, by partition. Times are those of one monotonic clock.

    >>> pacing = Pacing()
    >>> [pacing.ended("p", began_s=now, now_s=now) for now in range(5)]
    [0.0, 0.0, 0.05, 0.1, 0.2]
    >>> pacing.wait_s("p", 4.1) > 0, pacing.wait_s("q", 4.1) > 0, pacing.wait_s("p", 5)
    (True, False, 0.0)
    >>> pacing.ended("p", began_s=5, now_s=60)
    0.0
    """

    def __init__(self) -> None:
        self._short: dict[K, int] = {}
        self._until_s: dict[K, float] = {}

    def ended(self, partition: K, *, began_s: float, now_s: float) -> float:
        """A tenure has ended, however it did; for so long nothing should begin another."""
        if now_s - began_s > SOON_S:
            self._short.pop(partition, None)
            self._until_s.pop(partition, None)
            return 0.0
        short = self._short[partition] = self._short.get(partition, 0) + 1
        if short <= FREE:
            return 0.0
        pause_s = min(CAP_S, FIRST_S * 2.0 ** min(short - FREE - 1, 30))
        self._until_s[partition] = now_s + pause_s
        return pause_s

    def wait_s(self, partition: K, now_s: float) -> float:
        """How long it should still be left alone."""
        return max(0.0, self._until_s.get(partition, 0.0) - now_s)
