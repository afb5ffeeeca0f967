"""statemq/__init__.py is the one public door."""

from __future__ import annotations

import subprocess
import sys

import statemq


def test_the_door_is_sorted_and_opens() -> None:
    names = list(statemq.__all__)
    assert names == sorted(names), "keep statemq.__all__ sorted"
    assert len(names) == len(set(names))
    missing = [name for name in names if not hasattr(statemq, name)]
    assert not missing, f"statemq.__all__ names what is not there: {missing}"


def test_a_module_of_it_is_there_without_an_import_of_its_own() -> None:
    """``except statemq.errors.StepConflict`` must not depend on what else was imported."""
    program = "import statemq; print(statemq.errors.StepConflict.__name__, statemq.retry.Retry is statemq.Retry, hasattr(statemq, 'nope'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "StepConflict True False\n"


def test_the_door_lists_what_is_behind_it() -> None:
    assert {*statemq.__all__, "__doc__"} <= set(dir(statemq))
