"""A script's header is its contract: what holds after it, its keys in order, its arguments, its answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LUA = Path(__file__).parents[2] / "statemq" / "lua"
SCRIPTS = sorted(path for path in LUA.glob("*.lua") if not path.name.startswith("_"))

WRITES = re.compile(
    r"redis\.call\('(?:SET|DEL|HSET|HSETNX|HDEL|HINCRBY|XADD|XDEL|XACK|XCLAIM|ZADD|ZREM|RPUSH|LPUSH|LPOP|LSET|PEXPIRE|PUBLISH|SPUBLISH)'"
)


def header(text: str) -> dict[str, str]:
    """``first`` is the first line; KEYS, ARGV and RETURNS with their continuation lines."""
    parts: dict[str, str] = {}
    word = "first"
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        said = line[2:].strip()
        if match := re.match(r"(KEYS|ARGV|RETURNS)\b\s*(.*)", said):
            word, said = match[1], match[2]
            parts[word] = said
        elif word == "first":
            parts.setdefault("first", said)
        else:
            parts[word] += " " + said
    return parts


def fixed_names(keys: str) -> list[str]:
    """The keys that are always there, as Lua names: ``timers:data`` is timers_data, ``outcomes(stem)`` outcomes."""
    always = re.split(r",|\[", re.sub(r"\(.*?\)", "", keys))[0].split()
    return [word.replace(":", "_") for word in always if word != "none"]


def named_keys(text: str) -> dict[int, str]:
    """Which local holds which of KEYS, from the script's ``local a, b = KEYS[1], KEYS[2]`` lines."""
    named: dict[int, str] = {}
    for names, values in re.findall(r"^local ([\w, ]+) = (KEYS\[\d+\](?:, KEYS\[\d+\])*)$", text, re.MULTILINE):
        for name, index in zip(names.split(", "), re.findall(r"KEYS\[(\d+)\]", values), strict=True):
            named.setdefault(int(index), name)
    return named


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def script(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


EFFECTS = sorted((LUA / "effects").glob("*.lua"))


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda path: path.stem)
def test_an_effect_checks_before_it_writes(effect: Path) -> None:
    text = effect.read_text()
    parts = header(text)
    assert len(parts.get("first", "")) > 20, f"{effect.name}: the first line says what holds after the effect"
    assert {"KEYS", "ARGV"} <= parts.keys(), f"{effect.name}: the header lists its keys and arguments"
    check, found, write = text.partition("\n  write = function(")
    assert found and "\n  check = function(" in check and "redis.call" in write, (
        f"{effect.name}: check = function(…), then write = function(…)"
    )
    assert not WRITES.search(check), f"{effect.name}: a check writes nothing (P19)"


def test_there_are_scripts() -> None:
    assert EFFECTS, f"no effects in {LUA}"
    assert SCRIPTS, f"no scripts in {LUA}"


def test_the_header_is_whole(script: Path) -> None:
    parts = header(script.read_text())
    assert len(parts.get("first", "")) > 20, f"{script.name}: the first line says what holds after the script"
    missing = {"KEYS", "ARGV", "RETURNS"} - {name for name, said in parts.items() if said}
    assert not missing, f"{script.name}: the header lacks a line -- {', -- '.join(sorted(missing))}"


def test_each_key_has_its_name(script: Path) -> None:
    text = script.read_text()
    expected = dict(enumerate(fixed_names(header(text)["KEYS"]), start=1))
    named = {index: name for index, name in named_keys(text).items() if index in expected}
    assert named == expected, (
        f"{script.name}: name each key of the header in its order (local {', '.join(expected.values())} = KEYS[1], ...)"
    )


def test_the_token_is_checked_before_anything_is_written(script: Path) -> None:
    text = script.read_text()
    if "token" not in header(text)["ARGV"].split():
        return
    check = re.search(r"\bfence\(|~= token\b|== token\b", text)
    assert check, f"{script.name}: takes a token and does not compare it"
    write = WRITES.search(text)
    assert write is None or check.start() < write.start(), f"{script.name}: writes before it has compared the token"


def test_the_name_is_a_verb_in_small_letters(script: Path) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", script.stem), f"{script.name}: the file's name is the function's name"
