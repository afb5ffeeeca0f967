"""JSON, digests, ids and durations."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemq import codec
from statemq.errors import UsageError


def test_equal_values_have_equal_sorted_json() -> None:
    assert codec.encode_sorted({"b": 1, "a": [1, {"d": 1, "c": 2}]}) == b'{"a":[1,{"c":2,"d":1}],"b":1}'
    assert codec.decode(codec.encode({"b": 1, "a": None})) == {"b": 1, "a": None}


def test_a_digest_keeps_its_parts_apart() -> None:
    assert codec.digest(b"a", b"bc") != codec.digest(b"ab", b"c")
    assert codec.digest(b"a", b"b") == codec.digest(b"a", b"b")
    assert len(codec.digest(b"")) == 12


def test_uuid7_sorts_by_time_and_is_one() -> None:
    ids = [codec.uuid7(at_ms) for at_ms in (0, 1, 1_700_000_000_000, 2**48 - 1)]
    assert ids == sorted(ids)
    for id in ids:
        assert (len(id), id[12]) == (32, "7")
        assert id[16] in "89ab"
    assert ids[2].startswith(f"{1_700_000_000_000:012x}")
    assert len({codec.uuid7(5) for _ in range(1000)}) == 1000


def test_short_ids() -> None:
    ids = {codec.short_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(id) == 10 and id == id.lower() and id.isalnum() for id in ids)


def test_a_command_id_says_where_it_lives() -> None:
    id = codec.command_id("resource", 7, 1_700_000_000_000)
    assert codec.parse_command_id(id) == ("resource", 7)


ODD_IDS = ["a.1.x\n", "a.1.x y", "a.1.é", "a.\u0661.x", "a b.1.x", "a.1." + "x" * 300]


@pytest.mark.parametrize("id", ["", "resource", "resource.7", "resource.x.1", "resource.7.", ".7.1", "resource.-1.a", *ODD_IDS])
def test_what_is_no_command_id(id: str) -> None:
    with pytest.raises(UsageError, match="is no command id; one looks like"):
        codec.parse_command_id(id)


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
        ("1.5", 1500),
        (" 2 s ", 2000),
        (3, 3000),
        (0.0004, 0),
        (0, 0),
        (timedelta(minutes=1, milliseconds=3), 60_003),
    ],
)
def test_durations(value: Any, ms: int) -> None:
    assert codec.duration_ms(value) == ms


@pytest.mark.parametrize(
    "value", ["", "s", "-1s", "1w", "1 2s", "1e3", "nan", -1, -0.001, timedelta(seconds=-1), 2**60, math.nan, math.inf]
)
def test_what_is_no_duration(value: Any) -> None:
    with pytest.raises(UsageError, match="duration"):
        codec.duration_ms(value)


@given(st.integers(0, 2**40))
def test_milliseconds_survive(ms: int) -> None:
    assert codec.duration_ms(timedelta(milliseconds=ms)) == codec.duration_ms(f"{ms}ms") == ms


def test_times_are_utc() -> None:
    assert codec.rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert codec.rfc3339(1_764_000_000_123) == "2025-11-24T16:00:00.123Z"


def test_times_that_no_calendar_has_are_shown_as_its_end() -> None:
    assert codec.rfc3339(9 * 10**15) == "9999-12-31T23:59:59.000Z"
    assert codec.rfc3339(-1) == "1970-01-01T00:00:00.000Z"
