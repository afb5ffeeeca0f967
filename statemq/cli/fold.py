"""Lines as wide as the terminal on which they are read. What goes to a program (a pipe, and nobody has set COLUMNS) is never folded."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import IO

from statemq.cli.escape import clean, quote

NARROWEST, USUAL = 20, 80


class Line(str):
    """A command line that does what it says when it is copied to a shell, whatever its words hold."""

    __slots__ = ("words",)
    words: tuple[str, ...]

    def __new__(cls, *words: str) -> Line:
        line = super().__new__(cls, " ".join(map(quote, words)))
        line.words = words
        return line


def room(stream: IO[str]) -> int | None:
    """The cells of a line; None where lines are as long as they are."""
    wished = os.environ.get("COLUMNS", "")
    if wished.isdecimal() and int(wished):
        return max(NARROWEST, int(wished))
    if not stream.isatty():
        return None
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):  # it says that it is a terminal, and has no size
        columns = 0
    return max(NARROWEST, columns or USUAL)


def in_colour(stream: IO[str]) -> bool:
    """Whether who reads there sees colours, and has not said that they are not wanted."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def fold(text: str, wide: int, copied: Sequence[Line] = ()) -> list[str]:
    """The text in lines of at most ``wide`` cells, broken between words, within one only if it alone is wider. It is made harmless to
    print here. Each of ``copied`` that it holds has lines of its own, which a shell takes as the one command that they are."""
    lines: list[str] = []
    whole = {str(line): line for line in copied}
    around = "|".join(re.escape(line) for line in sorted(whole, key=len, reverse=True))
    for part in re.split(f"({around})", text) if whole else [text]:
        if part in whole:
            lines += _command(whole[part].words, wide)
        elif prose := part.removeprefix(")").removesuffix("(").strip() if whole else part:
            lines += _prose(clean(prose), wide)
    return lines or [""]


def _prose(text: str, wide: int) -> list[str]:
    from rich.cells import cell_len

    lines: list[str] = []
    line, used = "", 0
    for number, word in enumerate(text.split(" ")):
        size = cell_len(word)
        if number and used + 1 + size <= wide:
            line, used = f"{line} {word}", used + 1 + size
            continue
        if number:
            lines.append(line)
        while size > wide:
            head, word = _cut(word, wide)
            lines.append(head)
            size = cell_len(word)
        line, used = word, size
    return [*lines, line]


def _cut(word: str, wide: int) -> tuple[str, str]:
    """As much of the word as fits, and the rest."""
    from rich.cells import cell_len

    used = 0
    for number, char in enumerate(word):
        used += cell_len(char)
        if used > wide and number:
            return word[:number], word[number:]
    return word, ""


def _command(words: Sequence[str], wide: int) -> list[str]:
    """Lines that end with a backslash where the command goes on, within a word too: then the next one begins at its left end."""
    from rich.cells import cell_len

    lines = [""]
    for word in words:
        chunks = _chunks(word, wide - 2)
        if lines[-1] and (len(chunks) > 1 or cell_len(lines[-1]) + 1 + cell_len(chunks[0]) > wide - 2):
            lines[-1] += " \\"
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + chunks[0]
        for chunk in chunks[1:]:
            lines[-1] += "\\"
            lines.append(chunk)
    return lines


def _chunks(word: str, wide: int) -> list[str]:
    """The word as a shell takes it, in parts that are one word where nothing stands between them."""
    from rich.cells import cell_len

    if cell_len(quote(word)) <= wide:
        return [quote(word)]
    chunks, since = [], 0
    for end in range(1, len(word) + 1):
        if end - since > 1 and cell_len(quote(word[since:end])) > wide:
            chunks.append(quote(word[since : end - 1]))
            since = end - 1
    return [*chunks, quote(word[since:])]


def hanging(label: str, text: str, wide: int) -> list[str]:
    """The text beside the label; its further lines begin below its first one."""
    from rich.cells import cell_len

    at = cell_len(label)
    if wide - at < NARROWEST:  # too little room beside it
        return [*fold(label.rstrip(), wide), *(f"  {line}" for line in fold(text, wide - 2))]
    lines = fold(text, wide - at)
    return [label + lines[0], *(" " * at + line for line in lines[1:])]
