"""The arithmetic of the bench: percentiles, answers against data, how a backlog drains."""

from __future__ import annotations

import pytest

from statemq.bench.figures import Balance, Figure, Ledger, drain_rate, middle, percentile


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([7], 0.99, 7),
        ([4, 1, 3, 2], 0.5, 2),
        ([1, 2, 3, 4, 5], 0.5, 3),
        (range(1, 101), 0.99, 99),
        ([1, 2], 1.0, 2),
        ([1, 2], 0, 1),
    ],
)
def test_percentile_is_one_of_the_values(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_the_middle_of_an_even_number_lies_between() -> None:
    assert middle([1, 9, 3, 4]) == 3.5
    assert middle([]) == 0


def test_a_ratio_needs_something_to_compare_with() -> None:
    assert Figure(name="x", value=3, unit="/s", base=4).ratio == 0.75
    assert Figure(name="x", value=3, unit="/s").ratio is None
    assert Figure(name="x", value=3, unit="/s", base=0.0).ratio is None


def told(**done: int) -> Ledger:
    ledger = Ledger()
    for key, count in done.items():
        for _ in range(count):
            ledger.note(("flip", key))
    return ledger


def test_what_was_answered_and_is_stored_is_even() -> None:
    balance = told(a=2, b=1).balance({("flip", "a"): 2, ("flip", "b"): 1})
    assert balance == Balance(answered=3)
    assert balance.even


def test_lost_and_extra_do_not_make_up_for_each_other() -> None:
    balance = told(a=2, b=1, c=1).balance({("flip", "a"): 1, ("flip", "b"): 2})
    assert (balance.answered, balance.lost, balance.extra) == (4, 2, 1)
    assert not balance.even


def test_an_error_is_uneven_and_the_first_is_told() -> None:
    ledger = told(a=1)
    ledger.note_error(ValueError("first"))
    ledger.note_error(ValueError("second"))
    balance = ledger.balance({("flip", "a"): 1})
    assert (balance.errors, balance.first_error, balance.even) == (2, "ValueError: first", False)


def test_a_drain_is_timed_from_its_first_command_to_its_last() -> None:
    waits = [(at / 10, 1000) for at in range(21)]
    drains = [(2 + at / 10, 1000 - 25 * at) for at in range(1, 41)]
    assert drain_rate([*waits, *drains, (7.0, 0)]) == pytest.approx(250)


@pytest.mark.parametrize("samples", [[], [(0.0, 0)], [(0.0, 1000), (0.1, 600)], [(0.0, 1000), (0.1, 500), (0.2, 0)]])
def test_a_drain_that_was_hardly_seen_has_no_rate(samples: list[tuple[float, int]]) -> None:
    assert drain_rate(samples) is None
