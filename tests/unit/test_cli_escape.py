"""Texts of users on a terminal and in lines to copy: nothing in them is invisible, nothing is run."""

from __future__ import annotations

import json
import subprocess
import unicodedata

import pytest

from statemq.cli.ends import resume_line, to_copy
from statemq.cli.escape import clean, json_text, quote

INVISIBLE = {
    "tags": "\U000e0041\U000e007f\U000e0001",
    "variation selectors": "\ufe00\ufe0f\U000e0100\U000e01ef\u180b\u180f",
    "fillers": "\u115f\u1160\u3164\uffa0",
    "joiners": "\u034f\u200b\u200c\u200d\u2060\ufeff\u17b4",
    "directions": "\u202a\u202e\u2066\u2069\u200e\u061c",
    "spaces": "\xa0\u1680\u2003\u200a\u202f\u205f\u2800",
    "controls": "\x00\x1b\x7f\x85\x9b\r\n\t",
    "lines": "\u2028\u2029",
    "notations": "\U0001d173\U0001bca0\U0001d159\ufff9\ufffb",
}


@pytest.mark.parametrize("kind", INVISIBLE)
def test_what_shows_nothing_is_an_escape(kind: str) -> None:
    for char in INVISIBLE[kind]:
        assert clean(f"a{char}b").isascii() and "\\" in clean(f"a{char}b"), hex(ord(char))
        text = json_text({"k": f"a{char}b"})
        assert text.isascii() and json.loads(text) == {"k": f"a{char}b"}
        assert char not in quote(f"a{char}b")


def test_all_that_unicode_calls_a_format_or_ignores() -> None:
    """Of the characters of category Cf those that are shown (signs that stand around numbers, hieroglyphs' joiners) may stay."""
    shown = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}
    for code in range(0x110000):
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp", "Cs") and code not in shown:
            assert chr(code) not in clean(f"a{chr(code)}b"), hex(code)


def test_what_is_seen_stays() -> None:
    text = "zażółć 漢字　かな العربية עברית 😀 e\u0301 ñ"
    assert clean(text) == text


WORDS = [
    "a",
    "order 7",
    "x; touch /tmp/no",
    "$(id)",
    "`id`",
    "it's",
    '"',
    "a\\b",
    "-x",
    "--help",
    "",
    "*",
    "a\nb",
    "\x1b[31m",
    "a\u202eb'\\",
    "\U000e0041",
    "#x",
    "~",
]


@pytest.mark.parametrize("word", WORDS, ids=ascii)
def test_a_line_to_copy_gives_the_words_to_the_command(word: str) -> None:
    line = to_copy("resume", "resource", word).partition(" ")[2]
    assert clean(line) == line
    said = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"],
        capture_output=True,
        timeout=20,
        check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    words = said.stdout.decode().split("\0")[:-1]
    assert [one for one in words if one != "--"] == ["resume", "resource", word]
    assert ("--" in words) == word.startswith("-")


def test_how_to_resume_what_is_paused() -> None:
    assert resume_line("resource").endswith("resume resource")
    assert resume_line("resource/a/b c").endswith("resume resource 'a/b c'")
