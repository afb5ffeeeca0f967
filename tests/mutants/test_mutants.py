"""No mutant survives, and none has rotted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.catalog import MUTANTS
from tests.mutants.hunt import ROOT, hunt

FAST = ["start-unfenced", "outcome-outside-the-script", "attempts-share-a-copy", "twice-in-a-batch"]
"""One of each way to be caught and a few of the rules; the whole list takes minutes."""


@pytest.mark.quick
@pytest.mark.parametrize("name", MUTANTS)
def test_the_text_that_a_mutant_changes_is_there_once(name: str) -> None:
    mutant = MUTANTS[name]
    assert mutant.text(ROOT / "statemq") != (ROOT / "statemq" / mutant.file).read_text()


@pytest.mark.quick
@pytest.mark.parametrize("name", [n for n, m in MUTANTS.items() if m.test])
def test_the_test_that_must_fail_exists(name: str) -> None:
    path, _, test = MUTANTS[name].test.partition("::")
    assert f"def {test}(" in Path(ROOT / path).read_text()


@pytest.mark.quick
def test_the_page_names_all_and_no_others() -> None:
    rows = [line.split(" | ") for line in (ROOT / "docs" / "MUTANTS.md").read_text().splitlines() if line.count(" | ") == 3]
    named = {row[0].removeprefix("| "): (row[1], row[2]) for row in rows[1:]}
    assert named == {name: (m.rule, m.what) for name, m in MUTANTS.items()}


@pytest.mark.parametrize("name", FAST)
def test_a_mutant_is_caught(name: str) -> None:
    assert hunt(name).by


@pytest.mark.chaos
@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_caught(name: str) -> None:
    assert hunt(name).by
