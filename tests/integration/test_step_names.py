"""What cannot be a name is said once: no later attempt would call it otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from statemq import Client, Context, Machine, transition
from statemq.config import LIMITS
from tests.working import working

NAMES: dict[str, tuple[Any, str]] = {
    "empty": ("", '1 to 512 bytes, without "@"'),
    "at": ("a@b", '1 to 512 bytes, without "@"'),
    "long": ("é" * LIMITS.step_name, '1 to 512 bytes, without "@"'),
    "surrogate": ("\ud800", "no valid Unicode"),
    "number": (5, "give a text"),
    "none": (None, "give a text"),
    "list": (["a"], "give a text"),
    "repeat": ("pay#2", "tell repeats of a name apart"),
    "counted": ("1.2", "those without a name are counted so"),
}
calls: list[str] = []


class Caller(Machine[None], initial="on", partitions=1):
    @transition(source="on")
    async def go(self, ctx: Context, what: str, case: str) -> None:
        calls.append(what)
        name = NAMES[case][0]
        if what == "step":
            await ctx.step(name, int)
        elif what == "sleep":
            await ctx.sleep(0, name=name)
        elif what == "uuid":
            ctx.uuid(name=name)
        else:
            async with ctx.timeout(60, name=name):
                pass


@pytest.mark.parametrize("what", ["step", "sleep", "uuid", "timeout"])
async def test_what_cannot_be_a_name_fails_its_command_at_once(client: Client, url: str, namespace: str, what: str) -> None:
    unnamed = {"counted"} if what == "step" else {"empty", "none"}
    async with working(url, namespace, Caller):
        for case in NAMES.keys() - unnamed:
            calls.clear()
            outcome = await (await client.send(Caller.go("a", what, case))).outcome(timeout=60)
            assert (outcome.outcome, outcome.code, calls) == ("failed", "name", [what]), (case, outcome)
            assert f"cannot name a {what}: " in outcome.reason and NAMES[case][1] in outcome.reason
