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

from statemq import errors
from statemq.cli.escape import clean, quote

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
    if isinstance(error, errors.Rejected | errors.Failed | errors.Cancelled):
        how = type(error).__name__.lower()
        return text if text == how else f"{how}: {text}"
    return text


def say(text: str) -> None:
    """One remark on stderr: stdout is for answers. Further lines are indented; control characters are escaped."""
    lines = [clean(line) for line in text.splitlines()] or [""]
    sys.stderr.write("\n".join([f"statemq: {lines[0]}", *(line if line.startswith(" ") else f"  {line}" for line in lines[1:])]) + "\n")
    sys.stderr.flush()


def command() -> str:
    """How this command line was called, for lines to copy."""
    return quote(os.environ.get("STATEMQ_COMMAND") or "statemq")


def to_copy(verb: str, *words: str) -> str:
    """A line that does what it says when it is copied to a shell, whatever the words hold."""
    options_end = ["--"] if any(word.startswith("-") for word in words) else []
    return " ".join([command(), verb, *options_end, *map(quote, words)])


def resume_line(paused: str) -> str:
    """For what is paused, as `CommandStatus.paused` names it: a machine, or a machine and a key."""
    return to_copy("resume", *paused.split("/", 1))


def hint_result(id: str) -> None:
    """How to ask again for what was not waited for."""
    say(f"ask again with: {to_copy('result', id)}")
