"""Whether the disk has room for what `dev`'s own Redis writes: if not, every command is refused until it has."""

from __future__ import annotations

import time

from statemq.server import EmbeddedServer

LOOK_S = 1.0
AGAIN_S = 30.0
"""How often the same is said again."""


class Fullness:
    """Tells once that the server cannot write, now and then again, and once that it can."""

    def __init__(self, server: EmbeddedServer | None) -> None:
        self._server, self._look_at_s, self._told_s = server, 0.0, 0.0

    def look(self) -> str:
        """What is to be said; mostly nothing."""
        now_s = time.monotonic()
        if self._server is None or now_s < self._look_at_s:
            return ""
        self._look_at_s = now_s + LOOK_S
        why = self._server.write_error()
        if not why and self._told_s:
            self._told_s = 0.0
            return "Redis writes again, and what waited continues"
        if why and (not self._told_s or now_s >= self._told_s + AGAIN_S):
            self._told_s = now_s
            return f"Redis cannot write to {self._server.data_dir} ({why}), so no command runs; make room there, and all continues"
        return ""
