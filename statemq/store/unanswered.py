"""The calls of a connection that have no answer yet, in their order."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Any

from statemq.config import ABANDONED_BYTES

_SCRIPT = re.compile(rb"\*\d+\r\n\$\d+\r\n(?:FCALL|EVALSHA)\r\n")


class Call:
    __slots__ = ("answer", "packed")

    def __init__(self, packed: bytes, answer: asyncio.Future[Any]) -> None:
        self.packed, self.answer = packed, answer


class Unanswered(deque[Call]):
    """A plain queue, which is tidied while the server is away."""

    _bytes, _tidy_at = 0, ABANDONED_BYTES

    def waits(self, call: Call) -> None:
        """One more, which cannot be sent now. Meanwhile callers give up: reads that nobody waits for any more are dropped before they fill
        the memory. A script is sent all the same, since a numbered one that is left out would end its tenure (P2)."""
        self.append(call)
        self._bytes += len(call.packed) + 200
        if self._bytes > self._tidy_at:
            left = [c for c in self if not c.answer.done() or _SCRIPT.match(c.packed)]
            self.clear()
            self.extend(left)
            self._bytes = sum(len(c.packed) + 200 for c in left)
            self._tidy_at = max(ABANDONED_BYTES, 2 * self._bytes)

    def sent(self) -> None:
        """All of them are on their way."""
        self._bytes = 0
