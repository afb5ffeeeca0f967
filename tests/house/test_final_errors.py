"""Which errors are never tried again stands in the guide and in errors.py as the code has it."""

from __future__ import annotations

import re
from pathlib import Path

from statemq import errors

GUIDE = (Path(__file__).parents[2] / "docs" / "GUIDE.md").read_text()


def test_the_list_is_that_of_the_code() -> None:
    wanted = ["Reject", *(kind.__name__ for kind in errors.FINAL)]
    (sentence,) = re.findall(r"these are never tried again: (.*?) \(", GUIDE)
    assert re.findall(r"`(\w+)`", sentence) == wanted
    (sentence,) = re.findall(
        r"Never tried again, when a transition raises them: (.*?) of\nanother command", errors.__doc__ or "", re.DOTALL
    )
    assert re.findall(r"\b[A-Z]\w+", sentence) == wanted
