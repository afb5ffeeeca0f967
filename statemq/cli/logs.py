"""What a daemon writes to stderr: one readable line, or one JSON object, for each thing that happened."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum

from statemq.cli.escape import clean, json_text


class Format(StrEnum):
    text = "text"
    json = "json"


class Level(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def set_up(format: Format, level: Level) -> None:
    """Every logger writes to stderr from now on, in this format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if format is Format.json else _Text())
    logging.basicConfig(level=level.value.upper(), handlers=[handler], force=True)


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
