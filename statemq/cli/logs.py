"""What a daemon writes to stderr: one readable line, or one JSON object, for each thing that happened."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum

from statemq.cli.escape import clean, json_text

NAMES = ("statemq", *(f"statemq.{part}" for part in ("cli", "http", "store", "transition", "worker")))
"""All loggers of statemq's own."""


class Format(StrEnum):
    text = "text"
    json = "json"


class Level(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def set_up(format: Format, level: Level) -> None:
    """Every logger writes to stderr from now on, in this format.

    A target may set up logging as it likes, when it is imported or later: that is for its own lines. Ours stay, unless it gives the
    logger "statemq" handlers of its own.
    """
    handler, own = _handler(format), _handler(format)
    logging.basicConfig(level=level.value.upper(), handlers=[handler], force=True)
    for name in NAMES:
        logger = logging.getLogger(name)
        logger.__class__ = _Ours
        logger.setLevel(logging.NOTSET)
    ours = logging.getLogger(NAMES[0])
    ours.handlers, ours.propagate = [own], False
    ours.setLevel(level.value.upper())
    _Ours.last, _Ours.level_at_least = own, ours.level


def _handler(format: Format) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if format is Format.json else _Text())
    return handler


class _Ours(logging.Logger):
    """A logger that stays able to speak. ``logging.config`` disables each logger that it is not told of, takes the handlers from those
    below one that it is told of, and ``logging.disable`` silences all."""

    last: logging.Handler
    """Where a line goes that no handler would take."""
    level_at_least: int

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        """It is not."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's
        return level >= self.getEffectiveLevel()

    def getEffectiveLevel(self) -> int:  # noqa: N802 - logging's
        """Its own or the logger "statemq"'s: the root's is the target's."""
        above: logging.Logger | None = self
        while above is not None and above.name.startswith(NAMES[0]):
            if above.level:
                return above.level
            above = above.parent
        return self.level_at_least

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's
        if self.hasHandlers():
            super().callHandlers(record)
        else:
            self.last.handle(record)


class _Text(logging.Formatter):
    """``12:00:00.123 INFO resource/a ...``; a traceback follows on indented lines, which no text in it can leave (S15)."""

    def format(self, record: logging.LogRecord) -> str:
        at = self.formatTime(record, "%H:%M:%S")
        line = f"{at}.{record.msecs:03.0f} {record.levelname:<7} {clean(record.getMessage())}"
        traceback = self.formatException(record.exc_info) if record.exc_info else record.stack_info or ""
        return "\n".join([line, *(f"  {clean(text)}" for text in traceback.splitlines())])


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        from statemq.codec import rfc3339

        entry = {
            "at": rfc3339(round(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        elif record.stack_info:
            entry["traceback"] = record.stack_info
        return json_text(entry)
