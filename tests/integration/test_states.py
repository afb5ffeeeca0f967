"""States of every kind of Enum: whatever ``str`` of a member is, its state is the member's text wherever it is given, compared or shown."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from enum import Enum, StrEnum
from typing import Any, Literal

import pytest

from statemq import ANY, Client, Context, Machine, Rejected, query, sync, transition
from statemq.errors import DeclarationError
from tests.command_line import run_here
from tests.working import working


class Strings(StrEnum):
    OFF = "off"
    ON = "on"
    LOST = "lost"


class Mixed(str, Enum):  # noqa: UP042 - users have these
    OFF = "off"
    ON = "on"
    LOST = "lost"


class Plain(Enum):
    OFF = "off"
    ON = "on"
    LOST = "lost"


class Told(str, Enum):  # noqa: UP042
    """With a text of its own for people."""

    OFF = "off", "It is dark"
    ON = "on", "It shines"
    LOST = "lost", "Nobody knows"

    def __new__(cls, value: str, words: str) -> Told:
        made = str.__new__(cls, value)
        made._value_ = value
        return made

    def __init__(self, value: str, words: str) -> None:
        self.words = words

    def __str__(self) -> str:
        return self.words


class Iterated(Enum):
    """A member is one state though it could be gone through."""

    OFF = "off"
    ON = "on"
    LOST = "lost"

    def __iter__(self) -> Iterator[str]:
        return iter(self.value)


def lamp(enum: Any, status: Any) -> Any:
    """A machine whose states are written as members of ``enum``."""

    class Lamp(Machine[None, status], name="lamp", initial=enum.OFF, final={enum.LOST}, partitions=1):
        def _is_on(self) -> bool:
            """it is dark"""
            return self.state == enum.ON

        @transition(source=enum.OFF, target=enum.ON)
        async def light(self, ctx: Context) -> str:
            return await ctx.step("say", str, "lit")

        @light.when(enum.ON)
        def already(self, ctx: Context) -> str:
            return "was lit"

        @transition(source=[enum.OFF, enum.ON], target=[enum.OFF, enum.LOST])
        def hit(self, hard: bool, by_text: bool = False) -> None:
            self.state = (enum.LOST.value if by_text else enum.LOST) if hard else enum.OFF

        @transition(source=ANY, guard=_is_on)
        def read(self) -> bool:
            return self.state in {enum.ON, enum.LOST}

        @transition(source=ANY, target=enum.ON)
        def wrong(self) -> None:
            self.state = enum.LOST

        @query
        def look(self) -> str:
            return "shines" if self.state == enum.ON else "dark"

    return Lamp


KINDS = {
    "StrEnum": (Strings, Strings),
    "str and Enum": (Mixed, Mixed),
    "Enum": (Plain, Plain),
    "its own str": (Told, Told),
    "can be gone through": (Iterated, Iterated),
    "str and Enum, not declared": (Mixed, str),
    "Enum, not declared": (Plain, str),
    "Literal of str and Enum": (Mixed, Literal[Mixed.OFF, Mixed.ON, Mixed.LOST]),
    "Literal of Enum": (Plain, Literal[Plain.OFF, Plain.ON, Plain.LOST]),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_states_of_every_kind_of_enum(kind: str, url: str, namespace: str) -> None:
    enum, status = KINDS[kind]
    machine = lamp(enum, status)
    assert (machine.spec.initial, set(machine.spec.states), machine.spec.final) == ("off", {"off", "on", "lost"}, {"lost"})
    async with working(url, namespace, machine), Client(url, namespace=namespace, machines=[machine]) as client:
        assert (await client.get(machine, "a")).state == "off"
        with pytest.raises(Rejected, match=r"it is dark"):
            await client.call(machine.read("a"))
        for given in (enum.ON, "on"):
            with pytest.raises(Rejected, match=r"lamp/a is off, not on"):
                await client.call(machine.light("a"), if_state=given)
        assert await client.call(machine.light("a"), if_state=enum.OFF) == "lit"
        assert await client.call(machine.light("a"), if_state="on", idempotency_key="k") == "was lit"
        assert await client.call(machine.light("a"), if_state=enum.ON, idempotency_key="k") == "was lit", "the same request"
        assert await client.call(machine.read("a")) is True
        assert await client.query(machine, "a", "look") == "shines"
        with pytest.raises(Exception, match=r"lamp/a: wrong has the target on, but its body set self.state to lost"):
            await client.call(machine.wrong("a"))
        await client.call(machine.light("b"))
        await client.call(machine.hit("b", hard=True))
        await client.call(machine.hit("c", hard=True, by_text=True))
        with pytest.raises(Rejected, match=r"lamp/b is lost; light needs (off or on|on or off)"):
            await client.call(machine.light("b"))
        verdict = await client.can(machine, "b", "light")
        assert (verdict.allowed, verdict.state) == (False, "lost")
        assert [(row.key, row.state) for row in await client.list(machine, state=enum.ON)] == [("a", "on")]
        assert [row.key for row in await client.list("lamp", state=enum.LOST)] == ["b", "c"]
        assert [(entry.source, entry.target) for entry in await client.history(machine, "b")][:2] == [("", "on"), ("on", "lost")]
        found = await client.get(machine, "a")
        assert found.state == "on"
        assert type(found.state) is str

        def blocking() -> None:
            with sync.Client(url, namespace=namespace, machines=[machine]) as blocking:
                assert [row.key for row in blocking.list(machine, state=enum.ON)] == ["a"]
                assert blocking.call(machine.light("a"), if_state=enum.ON) == "was lit"

        await asyncio.to_thread(blocking)
        env = os.environ | {"STATEMQ_REDIS": url, "STATEMQ_NAMESPACE": namespace}
        listed = await asyncio.to_thread(run_here, "list", "lamp", "--state", "on", "--json", env=env)
        row = json.loads(listed.stdout)
        assert (row["key"], row["state"]) == ("a", "on"), "the only line"
        called = await asyncio.to_thread(run_here, "call", "lamp", "a", "light", "--if-state", "on", env=env)
        assert "was lit" in called.stdout, called.stderr


def test_a_state_has_one_name() -> None:
    """What has none, or two that are not equal, is told of when the class is made."""

    class Number(Enum):
        OFF = 1

    class Words(StrEnum):
        OFF = "not a name"

    def declare(enum: Any, status: Any, *more: Any) -> list[str]:
        with pytest.raises(DeclarationError) as caught:

            class Lamp(Machine[None, status], initial=enum.OFF):
                @transition(source=[enum.OFF, *more], target=enum.OFF)
                def go(self) -> None: ...

        return caught.value.problems

    for status in (Number, str, Literal[Number.OFF]):
        assert declare(Number, status)[0] == "<Number.OFF: 1> cannot be a state, its value is no text; write a StrEnum, or OFF = 'OFF'"
    assert declare(Words, Words)[0].startswith('"not a name" cannot name a state')
    assert "off is written as <Plain.OFF: 'off'> and as 'off', which are not equal; write one of them everywhere" in declare(
        Plain, str, "off"
    )
    assert "Status is an Enum of texts, not int" in declare(Plain, int)
