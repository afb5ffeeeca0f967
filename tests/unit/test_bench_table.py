"""Goals, verdicts and the table of the bench."""

from __future__ import annotations

import json

import pytest

from statemq.bench.figures import Balance, Figure
from statemq.bench.goals import GOALS, verdict
from statemq.bench.runner import NAMES, Report, choose
from statemq.bench.table import TITLES, as_json, cells, findings, number, remark, row, rows
from statemq.cli.escape import json_text
from statemq.errors import UsageError


def many_keys(value: float) -> Figure:
    return Figure(name="many keys", value=value, unit="/s", base=20_000, against="raw")


@pytest.mark.parametrize(("value", "expected"), [(15_000, "aim"), (14_999, "pass"), (10_000, "pass"), (9_999, "short")])
def test_a_rate_is_held_against_its_goal_by_its_ratio(value: float, expected: str) -> None:
    assert verdict(many_keys(value)) == expected


@pytest.mark.parametrize(("value", "expected"), [(400, "aim"), (401, "pass"), (600, "pass"), (601, "short")])
def test_memory_is_held_against_its_goal_by_itself(value: float, expected: str) -> None:
    assert verdict(Figure(name="memory per idle instance", value=value, unit="B")) == expected


def test_without_an_aim_passing_is_all() -> None:
    assert verdict(Figure(name="import statemq", value=1, unit="ms")) == "pass"


def test_a_figure_without_a_goal_has_no_verdict() -> None:
    assert verdict(Figure(name="batch, sent", value=1, unit="/s")) == ""


@pytest.mark.parametrize("name", GOALS)
def test_an_aim_is_never_easier_than_what_is_asked_at_least(name: str) -> None:
    goal = GOALS[name]
    assert goal.aim is None or goal.met(goal.aim, goal.at_least)


def test_a_row_shows_the_sign_of_its_limit() -> None:
    shown = cells(
        row(Figure(name="idle round trip p50, plain", value=0.3, unit="ms", base=0.25, against="raw"), GOALS["idle round trip p50, plain"])
    )
    assert shown == ("idle round trip p50, plain", "0.3 ms", "0.25", "1.20", "≤ 1.6", "≤ 1.2", "aim")
    assert len(shown) == len(TITLES)


def test_what_is_not_compared_with_raw_says_with_what() -> None:
    [drain, keys] = rows([Figure(name="batch drain", value=12_345.6, unit="/s", base=10_000, against="many keys", note="n"), many_keys(5)])
    assert cells(drain)[1:4] == ("12,346/s", "10,000", "1.23")
    assert remark(drain) == ("batch drain", "base: many keys; n")
    assert remark(keys) is None


@pytest.mark.parametrize(("value", "shown"), [(1_234_567.8, "1,234,568"), (100, "100"), (99.5, "99.5"), (0.25, "0.25"), (0, "0")])
def test_numbers_are_as_short_as_they_can_be(value: float, shown: str) -> None:
    assert number(value) == shown


def report(**balances: Balance) -> Report:
    return Report(
        server="Valkey 9", python="3.11", cpus=2, uvloop=True, seconds=1, rounds=3, figures=[many_keys(16_000)], balances=balances
    )


def test_the_json_has_rows_with_verdicts() -> None:
    said = json.loads(json_text(as_json(report(steps=Balance(answered=7)))))
    assert said["even"] is True
    assert said["balances"]["steps"]["answered"] == 7
    assert [(r["work"], r["base"], r["ratio"], r["verdict"]) for r in said["rows"]] == [("many keys", 20_000, 0.8, "aim")]


def test_only_uneven_works_are_told_of() -> None:
    said = report(steps=Balance(answered=7), batch=Balance(answered=9, lost=1, errors=2, first_error="Boom: why"))
    assert not said.even
    assert findings(said) == [
        "batch: of 9 answered commands 1 were lost, 0 done without an answer; 2 ended in an error (the first: Boom: why)"
    ]


def test_works_are_chosen_by_name_in_the_order_of_the_table() -> None:
    assert choose([]) == list(NAMES)
    assert choose(["scale", "many-keys"]) == ["many-keys", "scale"]
    with pytest.raises(UsageError, match="there is no work fast; choose from many-keys, hot-key, "):
        choose(["fast"])
