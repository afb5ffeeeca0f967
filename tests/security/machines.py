"""A machine that gives back what it is given, in every way a machine can."""

from __future__ import annotations

from typing import Any

import msgspec

from statemq import Context, Fail, Machine, Reject, Retry, query, transition


class Data(msgspec.Struct):
    kept: Any = None


class Echo(Machine[Data], initial="quiet", partitions=2, retry=Retry(attempts=1)):
    @transition(source="quiet")
    def say(self, what: Any) -> Any:
        self.data.kept = what
        return what

    @transition(source="quiet")
    def refuse(self, what: str) -> None:
        raise Reject(what, code=what)

    @transition(source="quiet")
    def fail(self, what: str) -> None:
        raise Fail(what, code=what)

    @transition(source="quiet")
    def crash(self, what: str) -> None:
        raise OSError(what)

    @transition(source="quiet")
    async def step(self, ctx: Context, what: str) -> str:
        ctx.logger.info("%s", what)
        await ctx.step(what.replace("@", "")[:50] or "x", str, what)
        await ctx.sleep(3600)
        return what

    @query
    def ask(self, what: str = "") -> str:
        return what
