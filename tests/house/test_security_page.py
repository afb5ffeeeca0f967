"""docs/SECURITY.md has every rule with tests that exist, and says first what it cannot defend (S13)."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "SECURITY.md").read_text()


def test_every_rule_names_tests_that_exist() -> None:
    rows = dict(re.findall(r"^\| (S\d+) \| .* \| (.*) \|$", PAGE, re.MULTILINE))
    assert list(rows) == [f"S{n}" for n in range(1, 21)]
    for rule, cell in rows.items():
        for name in re.findall(r"`([\w/]+\.py)`", cell):
            path = ROOT / name if "/" in name else ROOT / "tests" / "security" / name
            assert path.is_file(), f"{rule} names {name}"
            if "/" not in name:
                low, high = (re.findall(r"s(\d\d)", name) or [0])[0], (re.findall(r"s(\d\d)", name) or [0])[-1]
                named = {int(n) for n in re.findall(r"s(\d\d)", name)} | (set(range(int(low), int(high) + 1)) if "_to_" in name else set())
                assert int(rule[1:]) in named, f"{rule} names {name}"


def test_every_test_file_is_named() -> None:
    for path in (ROOT / "tests" / "security").glob("test_*.py"):
        assert f"`{path.name}`" in PAGE, path.name


def test_it_says_first_that_redis_is_the_whole_power() -> None:
    first = PAGE.split("\n\n")[1]
    assert "Whoever may write to statemq's keys in Redis may do anything" in first.replace("\n", " ")
    assert "**Untrusted producers go through HTTP, never through Redis.**" in PAGE
    assert "(docs/SECURITY.md)" in (ROOT / "README.md").read_text()


def test_its_example_is_as_compose_does_it() -> None:
    """Nothing of Redis is published; HTTP is, on loopback."""
    compose = (ROOT / "compose.yaml").read_text()
    published = re.findall(r'^ +- "(.*):\d+:\d+"$', compose, re.MULTILINE)
    assert published == ["127.0.0.1"]
    redis = compose.split("  redis:\n", 1)[1].split("\n  worker:", 1)[0]
    assert "ports:" not in redis
