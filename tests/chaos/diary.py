"""What a client does and hears, written down as it happens: the lines that ``statemq.testing`` judges."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgspec

from statemq import Client, Pending
from statemq.client.client import Handle
from statemq.errors import StatemqError
from statemq.records import Instance, Outcome
from statemq.testing.evidence import Fail, Info, Invoke, Ok, line
from tests.chaos.ledger import Ledger, Link

PATIENCE_S = 3.0
GIVES_UP_S = 60.0
"""Outcomes are kept for this long at least; later nobody could tell."""


class Diary:
    """One client's. A line is written before the next thing happens, so that a killed process leaves all it did."""

    def __init__(self, path: Path, client: str, *, safe: bool = False) -> None:
        """``safe``: the client waits for durability."""
        self.client, self.ops, self.safe = client, 0, safe
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def begin(self, kind: str, key: str, **more: Any) -> Invoke:
        self.ops += 1
        begun = Invoke(self.client, self.ops, time.monotonic(), kind, key, **more)
        os.write(self._file, line(begun))
        return begun

    def _end(self, kind: type[Ok] | type[Fail] | type[Info], begun: Invoke, **more: Any) -> None:
        os.write(self._file, line(kind(begun.client, begun.op, time.monotonic(), **more)))

    def ended(self, begun: Invoke, outcome: Outcome) -> None:
        if outcome.outcome == "completed":
            made = msgspec.json.decode(outcome.result, type=Link)
            value = [made.n, made.chain]
            self._end(Ok, begun, id=outcome.id, version=outcome.version, value=value, committed_ms=outcome.at, safe=self.safe)
        else:
            self._end(Fail, begun, id=outcome.id, why=outcome.outcome, committed_ms=outcome.at)

    def saw(self, begun: Invoke, instance: Instance) -> None:
        last = instance.data.last
        self._end(Ok, begun, version=instance.version, value=[last.n, last.chain])

    def done(self, begun: Invoke) -> None:
        """Of what has no value."""
        self._end(Ok, begun)

    def unknown(self, begun: Invoke, why: object, id: str = "") -> None:
        self._end(Info, begun, id=id or getattr(why, "id", ""), why=str(why))

    # -- whole operations --------------------------------------------------------------------------

    async def hear(self, begun: Invoke, handle: Handle[Any]) -> None:
        """The outcome is in the diary, or that nobody could tell."""
        until_s = time.monotonic() + GIVES_UP_S
        while True:
            try:
                self.ended(begun, await handle.outcome(PATIENCE_S))
                return
            except Pending as error:
                if time.monotonic() > until_s:
                    self.unknown(begun, error, handle.id)
                    return
            except StatemqError as error:
                self.unknown(begun, error, handle.id)
                return

    async def apply(self, client: Client, key: str) -> None:
        """A plain command, from beginning to end."""
        begun = self.begin("write", key, transition="apply", x=self.ops)
        try:
            handle = await client.send(Ledger.apply(key, begun.x))
        except StatemqError as error:
            self.unknown(begun, error)
            return
        await self.hear(begun, handle)
