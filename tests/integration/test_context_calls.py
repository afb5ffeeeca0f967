"""What an operation of ``ctx`` cannot do is said once: each attempt would ask for the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from statemq import Client, Context, Machine, UsageError, transition
from tests.working import working

CALLS: dict[str, tuple[Callable[[Context], Any], str]] = {
    "sleep, negative": (
        lambda ctx: ctx.sleep(-1),
        "sleep: a duration cannot be -1; give 0 or more seconds, a timedelta, or a text such as 30s",
    ),
    "sleep, a negative timedelta": (lambda ctx: ctx.sleep(timedelta(seconds=-1)), "sleep: a duration cannot be"),
    "sleep, without end": (lambda ctx: ctx.sleep(float("inf")), "sleep: a duration cannot be inf; give at most 100 years"),
    "sleep, too long": (lambda ctx: ctx.sleep("36526d"), "sleep: a duration cannot be 36526d; give at most 100 years"),
    "time-out, too long": (
        lambda ctx: ctx.timeout(timedelta(days=40_000)),
        "timeout: a duration cannot be 40000 days, 0:00:00; give at most",
    ),
    "sleep, no number": (lambda ctx: ctx.sleep(float("nan")), "sleep: a duration cannot be nan"),
    "sleep, no duration": (lambda ctx: ctx.sleep("tomorrow"), 'sleep: "tomorrow" is no duration'),
    "sleep, nothing": (lambda ctx: ctx.sleep(None), "sleep: None is no duration"),  # type: ignore[arg-type]
    "time-out, negative": (lambda ctx: ctx.timeout(-1), "timeout: a duration cannot be -1"),
    "time-out, no duration": (lambda ctx: ctx.timeout("5 weeks"), 'timeout: "5 weeks" is no duration'),
    "step, a time-out of nothing": (lambda ctx: ctx.step("x", int, timeout=0), "step x: timeout is from 1 ms to ten years"),
    "step, a negative time-out": (lambda ctx: ctx.step("x", int, timeout=-1), "step x: timeout is from 1 ms to ten years"),
    "step, no function": (lambda ctx: ctx.step("x"), 'write await ctx.step("name", function, *arguments)'),  # type: ignore[call-overload]
    "step, an option that is none": (lambda ctx: ctx.step("x", int, retries=3), "unexpected keyword argument 'retries'; write"),  # type: ignore[call-overload]
    "step, no name": (lambda ctx: ctx.step(int, "5"), 'write the name first: ctx.step("int", int, *arguments)'),  # type: ignore[call-overload]
    "step, nothing": (lambda ctx: ctx.step(), "ctx.step: missing 2 required positional arguments"),  # type: ignore[call-overload]
    "sleep, no time": (lambda ctx: ctx.sleep(), 'write await ctx.sleep("30s")'),  # type: ignore[call-arg]
    "sleep, two": (lambda ctx: ctx.sleep(1, "x"), "ctx.sleep: takes 2 positional arguments but 3 were given"),  # type: ignore[call-arg]
    "time-out, no time": (lambda ctx: ctx.timeout(), 'write async with ctx.timeout("30m"):'),  # type: ignore[call-arg]
    "uuid, a name": (lambda ctx: ctx.uuid("x"), "write ctx.uuid()"),  # type: ignore[call-arg]
    "step key, none": (lambda ctx: ctx.step_key(), 'write ctx.step_key("name")'),  # type: ignore[call-arg]
    "now, with a zone": (lambda ctx: ctx.now("UTC"), "write ctx.now()"),  # type: ignore[call-arg]
    "step, no retry": (lambda ctx: ctx.step("x", int, retry=3), "step x was given 3 as retry"),  # type: ignore[call-overload]
}
calls: list[str] = []


class Asker(Machine[None], initial="on", partitions=1):
    @transition(source="on")
    async def go(self, ctx: Context, case: str) -> None:
        calls.append(case)
        async with asyncio.timeout(60):
            await CALLS[case][0](ctx)

    @transition(source="on")
    async def catches(self, ctx: Context) -> str:
        try:
            await ctx.sleep(-1)
        except UsageError as error:
            return str(error)
        return ""

    @transition(source="on")
    def waits(self, ctx: Context, what: str) -> None:
        calls.append(what)
        if what == "sleep":
            ctx.sleep(1)
        elif what == "timeout":
            ctx.timeout(1)
        else:
            ctx.step("x", int)


async def test_what_cannot_be_asked_for_fails_its_command_at_once(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Asker):
        for case, (_, words) in CALLS.items():
            calls.clear()
            outcome = await (await client.send(Asker.go("a", case))).outcome(timeout=20)
            assert (outcome.outcome, calls) == ("failed", [case]), (case, outcome)
            assert words in outcome.reason
        assert (
            await client.call(Asker.catches("a"), timeout=20)
            == "sleep: a duration cannot be -1; give 0 or more seconds, a timedelta, or a text such as 30s"
        )


@pytest.mark.parametrize("what", ["sleep", "timeout", "step"])
async def test_a_plain_def_that_would_wait_fails_at_once(client: Client, url: str, namespace: str, what: str) -> None:
    async with working(url, namespace, Asker):
        calls.clear()
        outcome = await (await client.send(Asker.waits("a", what))).outcome(timeout=20)
        assert (outcome.outcome, outcome.code, calls) == ("failed", "usage", [what])
        assert "needs an async def transition" in outcome.reason
