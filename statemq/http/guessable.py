"""Whether a token is one that guesses try: it need not be long, but it must not be a word or a pattern."""

from __future__ import annotations

import re

SHORTEST = 8
LONG = 17
"""From here on, words with something added to them are taken: they are too many to try at the speed at which wrong ones are answered."""

DIFFERENT = 4
"""Characters that follow no pattern, at least."""

WORDS = [
    "access",
    "admin",
    "administrator",
    "api",
    "auth",
    "bearer",
    "changeme",
    "change",
    "check",
    "chat",
    "default",
    "demo",
    "dev",
    "development",
    "dragon",
    "example",
    "foobar",
    "foo",
    "bar",
    "baz",
    "football",
    "guest",
    "hello",
    "help",
    "iloveyou",
    "key",
    "keys",
    "letmein",
    "login",
    "love",
    "master",
    "me",
    "monkey",
    "my",
    "pass",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "please",
    "prod",
    "production",
    "princess",
    "redis",
    "root",
    "secret",
    "secrets",
    "server",
    "service",
    "shadow",
    "sunshine",
    "statemq",
    "superuser",
    "sys",
    "system",
    "temp",
    "test",
    "tester",
    "testing",
    "the",
    "this",
    "token",
    "tokens",
    "top",
    "trustno",
    "user",
    "username",
    "valkey",
    "very",
    "welcome",
    "your",
]

ROWS = (
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertzuiop",
    "azertyuiop",
    "qsdfghjklm",
    "1234567890",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
)

_LEET = str.maketrans("013457@$!", "oieastasi")
_ONLY_WORDS = re.compile(rf"(?:{'|'.join(sorted(WORDS, key=len, reverse=True))})+")


def is_guessable(token: str) -> bool:
    """Words that everybody tries, in whatever spelling and with whatever digits behind them; rows of keys, counting, repetition."""
    text = token.lower()
    once = re.sub(r"(.+?)\1+", r"\1", text)
    spellings = {re.sub(r"[^a-z]", "", spelling) for spelling in (text, text.translate(_LEET), once, _bare(text).translate(_LEET))}
    if len(token) < LONG and any(_ONLY_WORDS.fullmatch(spelling) for spelling in spellings):
        return True
    return len(set(_without_runs(once))) < DIFFERENT


def _bare(text: str) -> str:
    """Without the digits and signs around it."""
    return re.sub(r"^[^a-z]+|[^a-z]+$", "", text)


def _without_runs(text: str) -> str:
    """What does not follow from the character before it: by counting, in either direction, or along a row of keys."""
    kept = ""
    for before, char in zip(" " + text, text, strict=False):
        near = abs(ord(char) - ord(before)) <= 1 or any(before + char in row or char + before in row for row in ROWS)
        kept += "" if near else char
    return kept
