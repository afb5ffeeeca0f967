"""docs/FAULTS.md has every fault, and each of its tests exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "FAULTS.md"
CELL = re.compile(r"(?<!\\)\|")


def rows() -> dict[str, tuple[list[str], str]]:
    """Number → its tests and its result."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in CELL.split(line)[1:-1]]
        if cells and re.fullmatch(r"A?\d+", cells[0]):
            number, _, _, tests, result = cells
            assert number not in found, f"fault {number} is there twice"
            found[number] = (re.findall(r"`([^`]+)`", tests), result)
    return found


NUMBERS = list(rows())


def test_every_fault_has_its_row() -> None:
    assert [*map(str, range(1, 52)), *(f"A{n}" for n in range(1, len(NUMBERS) - 50))] == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_a_row_says_how_it_went(number: str) -> None:
    tests, result = rows()[number]
    assert re.match(r"pass\b|not applicable: \w+|not automated: \w+", result), f"fault {number}: {result}"
    assert tests or not result.startswith("pass"), f"fault {number} passes by no test"


def test_each_test_exists() -> None:
    named = {test for tests, _ in rows().values() for test in tests}
    files = {test.partition("::")[0] for test in named}
    there = {f"{file}::{name}" for file in files for name in functions(ROOT / "tests" / file)}
    missing = sorted(named - there)
    assert not missing, f"docs/FAULTS.md names tests that do not exist: {missing}"


def test_each_fault_test_has_a_row() -> None:
    named = {test for tests, _ in rows().values() for test in tests}
    there = {f"faults/{file.name}::{name}" for file in (ROOT / "tests" / "faults").glob("test_*.py") for name in functions(file)}
    unnamed = sorted(there - named)
    assert not unnamed, f"docs/FAULTS.md does not name: {unnamed}"


def functions(file: Path) -> set[str]:
    """The tests that a file defines, as pytest would collect them."""
    if not file.exists():
        return set()
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, kinds) and node.name.startswith("test_")}
