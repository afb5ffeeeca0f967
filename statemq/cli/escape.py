"""Text of users on its way to a terminal: what could steer the terminal or hide is written as an escape."""

from __future__ import annotations

import re
import shlex
from typing import Any

_INVISIBLE = re.compile(
    r"[\x00-\x1f\x7f-\xa0\xad\ud800-\udfff"  # C0, DEL, C1, the soft hyphen, lone surrogates
    r"\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f"  # joiners, marks and fillers of scripts
    r"\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3164"  # spaces of other widths or none, line separators, directions, blanks
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"  # variation selectors, marks, what is no character
    r"\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"  # signs of notations, tags, more variation selectors
)
"""What shows nothing, or what only looks like a space (U+3000, a space of its scripts' own, may stay)."""


def clean(text: str) -> str:
    r"""The text on one line, harmless to print.

    >>> clean("a\x1b[31mb\n\u202ec")
    'a\\x1b[31mb\\n\\u202ec'
    """
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def json_text(value: Any) -> str:
    """Compact JSON on one line that means the same and is harmless to print."""
    from statemq.codec import encode

    text = encode(value).decode()
    return _INVISIBLE.sub(_json_escape, text)  # such characters stand only inside strings


def _json_escape(match: re.Match[str]) -> str:
    """JSON writes characters beyond U+FFFF as two surrogates."""
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[n : n + 4]}" for n in range(0, len(units), 4))


def quote(word: str) -> str:
    r"""The word for a line to copy: a shell takes it as this one word, and nothing in it is invisible.

    >>> quote("order 7; ls"), quote("ab")
    ("'order 7; ls'", "$'a\u001bb'")
    """
    if not _INVISIBLE.search(word):
        return shlex.quote(word)
    text = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_INVISIBLE.sub(lambda match: _shell_escape(ord(match[0])), text)}'"


def _shell_escape(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
