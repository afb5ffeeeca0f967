"""Text of users on its way to a terminal: what could steer the terminal or hide is written as an escape."""

from __future__ import annotations

import re
from typing import Any

_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\xa0\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""C0, DEL, C1, soft and zero-width characters, line separators, direction changes, lone surrogates."""


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
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)  # such characters stand only inside strings
