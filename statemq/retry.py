"""When to try again: plain data and a plain function, no clocks."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from statemq.codec import duration_ms


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """``attempts`` in all, waiting ``first * factor ** n`` between them, at most ``cap``, each shortened at random by up to ``jitter``.

    Durations in seconds or timedelta. The default gives up after 20 attempts, about ten minutes.
    """

    attempts: int = 20
    first: float | timedelta = 0.05
    factor: float = 2.0
    cap: float | timedelta = 60.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"a retry policy needs at least one attempt, not {self.attempts}")
        if self.factor < 1:
            raise ValueError(f"a retry's factor cannot be below 1, it is {self.factor}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"a retry's jitter is a share between 0 and 1, not {self.jitter}")
        duration_ms(self.first), duration_ms(self.cap)


def next_ms(policy: Retry, attempts: int, luck: float) -> int | None:
    """How long to wait (ms) after ``attempts`` attempts have failed; None to give up. ``luck`` in [0, 1) drives the jitter.

    >>> next_ms(Retry(jitter=0), 1, 0.5), next_ms(Retry(jitter=0), 3, 0.5), next_ms(Retry(attempts=3), 3, 0.5)
    (50, 200, None)
    """
    if attempts >= policy.attempts:
        return None
    cap, first = duration_ms(policy.cap), duration_ms(policy.first)
    try:
        wait = min(cap, first * policy.factor ** (attempts - 1))
    except OverflowError:
        wait = cap
    return round(wait * (1 - policy.jitter * luck))
