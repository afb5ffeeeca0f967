"""When a partition that another worker should have may stop, so that what runs in it ends and it can go (P7)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

SHARE = 20
"""It stops for one part of so many of the time, at most: others of its keys wait meanwhile."""

LEAST_S = 0.5
"""What usually runs has ended by then."""


class Patience:
    """What has run for long will run for as long again: so one long step hardly stops a partition, which goes when that has ended, and many
    of some seconds stop it seldom, but then long enough.

    >>> patience = Patience(most_s=10)
    >>> patience.look(["a"], 0), patience.may_stop_s(0)
    (None, 0.5)
    >>> patience.has_stopped(0.5)
    >>> patience.look(["a"], 30), patience.may_stop_s(30)
    (None, 0.0)
    >>> patience.look(["b"], 31), patience.may_stop_s(31)
    (None, 0.5)
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._since_s: dict[Hashable, float] = {}
        self._stopped_s: float | None = None

    def look(self, running: Iterable[Hashable], now_s: float) -> None:
        """This runs now."""
        self._since_s = {what: self._since_s.get(what, now_s) for what in running}

    def may_stop_s(self, now_s: float) -> float:
        """For how long at most, if it may stop now; else 0."""
        oldest_s = max((now_s - since_s for since_s in self._since_s.values()), default=0.0)
        for_s = min(self._most_s, max(LEAST_S, 2 * oldest_s))
        return for_s if self._stopped_s is None or now_s - self._stopped_s >= SHARE * for_s else 0.0

    def has_stopped(self, now_s: float) -> None:
        """In vain, until now."""
        self._stopped_s = now_s
