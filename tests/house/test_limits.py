"""docs/LIMITS.md and the append script say the numbers of config.py."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from statemq import config
from statemq.config import LIMITS, HttpSettings, WorkerSettings

ROOT = Path(__file__).parents[2]


def rows(title: str) -> dict[str, float]:
    """The first two columns of the table under a heading that begins so."""
    text = (ROOT / "docs" / "LIMITS.md").read_text()
    part = text.split(f"## {title}")[1].split("\n## ")[0]
    found = re.findall(r"^\| `(\w+)` \| ([\d,]+(?:\.\d+)?)", part, re.MULTILINE)
    assert len(found) == len({name for name, _ in found})
    return {name: float(number.replace(",", "")) for name, number in found}


def test_limits_of_commands() -> None:
    assert rows("Commands") == msgspec.structs.asdict(LIMITS)


def test_limits_of_http() -> None:
    assert rows("HTTP") == msgspec.structs.asdict(HttpSettings())


def test_limits_in_memory() -> None:
    table = rows("In memory")
    settings = msgspec.structs.asdict(WorkerSettings())
    assert table == {name: settings[name] if name in settings else getattr(config, name) for name in table}
    assert len(table) == 8


def test_what_is_kept() -> None:
    table = rows("What is kept")
    assert table == {name: getattr(config, name) for name in table}
    assert len(table) == 8


def test_the_script_has_the_same_numbers() -> None:
    words = (ROOT / "statemq" / "lua" / "_words.lua").read_text()
    assert re.findall(r"^local ONCE_TTL_MS = (\d+)$", words, re.MULTILINE) == [str(config.ONCE_TTL_MS)]
    source = (ROOT / "statemq" / "lua" / "append.lua").read_text()
    found: dict[str, int] = {}
    for names, numbers in re.findall(r"^local (MAX_[\w, ]+) = ([\d, ]+)$", source, re.MULTILINE):
        found |= dict(zip(names.split(", "), map(int, numbers.split(", ")), strict=True))
    assert found == {
        "MAX_KEY": LIMITS.key,
        "MAX_NAME": LIMITS.name,
        "MAX_ID": LIMITS.id,
        "MAX_ARGUMENTS": LIMITS.arguments,
        "MAX_FIELD": LIMITS.field,
        "MAX_DELAY_MS": LIMITS.delay_ms,
        "MAX_BATCH": LIMITS.batch,
    }
