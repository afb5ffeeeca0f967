"""statemq/__init__.py is the one public door."""

from __future__ import annotations

import statemq


def test_the_door_is_sorted_and_opens() -> None:
    names = list(statemq.__all__)
    assert names == sorted(names), "keep statemq.__all__ sorted"
    assert len(names) == len(set(names))
    missing = [name for name in names if not hasattr(statemq, name)]
    assert not missing, f"statemq.__all__ names what is not there: {missing}"
