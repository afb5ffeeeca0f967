"""How a command of the command line ends: its exit code and its one sentence on stderr.

0  ok
1  rejected, failed, cancelled; not accepted now
2  usage, unknown name
3  no Redis, or none that statemq can use
4  the wait timed out; the command goes on
130  Ctrl-C
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from statemq import errors
from statemq.cli.escape import clean, quote
from statemq.cli.fold import Line, fold, room

NAME = "statemq: "
"""So begins what is said on stderr."""

OK, ENDED_BADLY, USAGE, NO_REDIS, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 130

CODES: list[tuple[type[errors.StatemqError], int]] = [
    (errors.Pending, TIMED_OUT),
    (errors.Unknown, USAGE),
    (errors.UsageError, USAGE),
    (errors.DeclarationError, USAGE),
    (errors.ServerError, NO_REDIS),
    (errors.StatemqError, ENDED_BADLY),
]
"""The first that fits counts."""


def code_of(error: errors.StatemqError) -> int:
    return next(code for kind, code in CODES if isinstance(error, kind))


def sentence_of(error: errors.StatemqError) -> str:
    """What happened, in the error's words; a command that ended is named with how."""
    text = str(error) or error.code.replace("_", " ")
    if isinstance(error, errors.DeclarationError):
        from statemq.target import sentence_of as with_line

        return with_line(error)
    if isinstance(error, errors.Rejected | errors.Failed | errors.Cancelled):
        how = type(error).__name__.lower()
        return text if text == how else f"{how}: {text}"
    return text


class Remark(NamedTuple):
    """A sentence, and the command lines in it."""

    text: str
    copied: tuple[Line, ...] = ()


def say(text: str, *copied: Line) -> None:
    """One remark on stderr: stdout is for answers. Further lines are indented; control characters are escaped. ``copied`` are the command
    lines in it: where the terminal is too narrow they have lines of their own, so that they can still be copied."""
    wide = room(sys.stderr) if sys.stderr.isatty() else None  # a log is searched for whole sentences
    lines = []
    for number, line in enumerate(text.splitlines() or [""]):
        begins = NAME if number == 0 else "" if line.startswith(" ") else "  "
        lines += remark_lines(line, begins, wide, copied)
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def remark_lines(text: str, begins: str, wide: int | None, copied: Sequence[Line]) -> list[str]:
    """The lines of one sentence. One that goes on with a word of a command begins at the left, as the shell wants it."""
    whole = begins + clean(text)
    if wide is None:
        return [whole]
    from rich.cells import cell_len

    if cell_len(whole) <= wide:
        return [whole]
    lines = fold(text, wide - max(len(begins), 2), copied)
    word_goes_on = [False, *(line.endswith("\\") and not line.endswith(" \\") for line in lines[:-1])]
    return [
        (begins if number == 0 else "" if joins else "  ") + line
        for number, (line, joins) in enumerate(zip(lines, word_goes_on, strict=True))
    ]


def command() -> str:
    """How this command line was called, for lines to copy."""
    return quote(_called())


def _called() -> str:
    return os.environ.get("STATEMQ_COMMAND") or "statemq"


def to_copy(verb: str, *words: str) -> Line:
    """A line that does what it says when it is copied to a shell, whatever the words hold."""
    options_end = ["--"] if any(word.startswith("-") for word in words) else []
    return Line(_called(), verb, *options_end, *words)


def resume_line(paused: str) -> Line:
    """For what is paused, as `CommandStatus.paused` names it: a machine, or a machine and a key."""
    return to_copy("resume", *paused.split("/", 1))


def hint_result(id: str) -> None:
    """How to ask again for what was not waited for."""
    line = to_copy("result", id)
    say(f"ask again with: {line}", line)
