"""The machine of these tests: what its handlers do beside keeping a log is the test's to say."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec

from statemq import ANY, Context, Machine, Retry, transition

HOOKS: dict[str, Callable[..., Any]] = {}
"""Transition → what it calls with (instance, ctx, n); the fixture ``hooks`` empties it."""


class Phase(StrEnum):
    IDLE = "IDLE"


class Log(msgspec.Struct):
    log: list[int] = []


class Probe(Machine[Log, Phase], initial=Phase.IDLE, partitions=1, retry=Retry(first=0.01, jitter=0)):
    @transition(source=ANY)
    def note(self, n: int = 0) -> list[int]:
        """Pure."""
        self.data.log.append(n)
        return self.data.log

    @transition(source=ANY)
    def pure(self, ctx: Context, n: int = 0) -> list[int]:
        """Pure, with a hook."""
        self.data.log.append(n)
        HOOKS["pure"](self, ctx, n)
        return self.data.log

    @transition(source=ANY)
    async def work(self, ctx: Context, n: int = 0) -> list[int]:
        """The log is written first: what an attempt that raises has done to its own copy must not stay."""
        self.data.log.append(n)
        await HOOKS["work"](self, ctx, n)
        return self.data.log


class Strict(Machine[Log, Phase], initial=Phase.IDLE, partitions=1, on_failure="pause", retry=Retry(attempts=1)):
    @transition(source=ANY)
    async def work(self, ctx: Context, n: int = 0) -> list[int]:
        self.data.log.append(n)
        await HOOKS["work"](self, ctx, n)
        return self.data.log
