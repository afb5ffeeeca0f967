"""ARCHITECTURE.md shows every room of the house and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules() -> set[str]:
    files = {path for path in (ROOT / "statemq").rglob("*.py") if path.name != "__init__.py"}
    files |= set((ROOT / "statemq").rglob("*.lua"))
    return {path.relative_to(ROOT / "statemq").as_posix() for path in files}


def named() -> set[str]:
    """What the page names in backquotes as a file under statemq/: `store/wire.py`, `lua/append.lua`, `keys.py`."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    return {name.removeprefix("statemq/") for name in re.findall(r"`([\w./]+\.(?:py|lua))`", text) if not name.startswith("tests/")}


def test_every_module_is_named() -> None:
    unnamed = sorted(modules() - named())
    assert not unnamed, f"ARCHITECTURE.md does not say what these are for: {unnamed}"


def test_no_module_is_made_up() -> None:
    made_up = sorted(named() - modules())
    assert not made_up, f"ARCHITECTURE.md names what does not exist: {made_up}"
