"""When to try again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemq import Retry
from statemq.retry import next_ms


def waits(policy: Retry, luck: float = 0.0) -> list[int]:
    found: list[int] = []
    while (wait := next_ms(policy, len(found) + 1, luck)) is not None:
        found.append(wait)
    return found


def test_it_doubles_up_to_the_cap() -> None:
    assert waits(Retry())[:12] == [50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000]


def test_the_default_gives_up_after_twenty_attempts_and_about_ten_minutes() -> None:
    assert len(waits(Retry())) == 19
    assert 9 * 60_000 <= sum(waits(Retry())) <= 11 * 60_000


def test_one_attempt_is_no_retry() -> None:
    assert next_ms(Retry(attempts=1), 1, 0.5) is None


def test_jitter_only_shortens() -> None:
    assert next_ms(Retry(first=1, jitter=0.5), 1, 0.999) == 500
    assert next_ms(Retry(first=1, jitter=0.5), 1, 0.0) == 1000


def test_durations_may_be_timedeltas() -> None:
    assert waits(Retry(attempts=4, first=timedelta(seconds=1), cap=timedelta(seconds=2))) == [1000, 2000, 2000]


@given(
    attempts=st.integers(1, 10**9),
    factor=st.floats(1, 1000),
    first=st.floats(0, 1e6),
    cap=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
    luck=st.floats(0, 1, exclude_max=True),
)
def test_a_wait_is_never_negative_nor_over_the_cap(
    attempts: int, factor: float, first: float, cap: float, jitter: float, luck: float
) -> None:
    policy = Retry(attempts=10**9 + 1, factor=factor, first=first, cap=cap, jitter=jitter)
    wait = next_ms(policy, attempts, luck)
    assert wait is not None
    assert 0 <= wait <= round(cap * 1000)


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"factor": 0.5}, {"jitter": 1.1}, {"jitter": -0.1}, {"first": -1}, {"cap": -1}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"attempt|factor|jitter|duration"):
        Retry(**wrong)
