"""How long ago something was, though a clock may have stood still since: the host slept, its guest was paused, somebody set it.

``CLOCK_MONOTONIC`` does not count a suspension, ``CLOCK_BOOTTIME`` not the pause of a virtual machine, the wall clock can be set.
Whichever says that more time has passed is believed: asking too often does no harm.
"""

from __future__ import annotations

import time
from typing import NamedTuple

_SLEEP_TOO = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""The clock that goes on while the host sleeps; on macOS that is CLOCK_MONOTONIC, which Python's ``time.monotonic`` does not read there."""


class Moment(NamedTuple):
    """One moment by each clock, in seconds."""

    monotonic_s: float
    boot_s: float
    wall_s: float


def moment() -> Moment:
    monotonic_s = time.monotonic()
    boot_s = monotonic_s if _SLEEP_TOO is None else time.clock_gettime(_SLEEP_TOO)
    return Moment(monotonic_s, boot_s, time.time())


def passed_s(since: Moment, now: Moment) -> float:
    """By the clock that says most.

    >>> passed_s(Moment(1, 1, 1), Moment(2, 9, 0))
    8
    """
    return max(now[0] - since[0], now[1] - since[1], now[2] - since[2])


def earlier(when: Moment, by_s: float) -> Moment:
    """So much longer ago, whatever the clocks of this host say."""
    return Moment(when[0] - by_s, when[1] - by_s, when[2] - by_s)
