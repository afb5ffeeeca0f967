"""What ``doctor`` says: a line each, with one sentence, and what to do where something is not as it should be."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Level(StrEnum):
    ok = "ok"
    warn = "warn"
    bad = "bad"


class Finding(msgspec.Struct, frozen=True):
    """``check`` names what was looked at, ``where`` the server or machine; ``todo`` is empty when it is ok."""

    level: Level
    check: str
    where: str
    text: str
    todo: str = ""


class Findings:
    """Collects the lines about one server or machine."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: list[Finding] = []

    def ok(self, check: str, text: str) -> None:
        self.lines.append(Finding(Level.ok, check, self.where, text))

    def warn(self, check: str, text: str, todo: str) -> None:
        self.lines.append(Finding(Level.warn, check, self.where, text, todo))

    def bad(self, check: str, text: str, todo: str) -> None:
        self.lines.append(Finding(Level.bad, check, self.where, text, todo))

    def unseen(self, check: str, what: list[str], todo: str = "allow it, or ask as a user who may") -> None:
        """Not seen is not ok."""
        self.warn(check, f"not seen: {', '.join(dict.fromkeys(what))} is refused to this user", todo)
