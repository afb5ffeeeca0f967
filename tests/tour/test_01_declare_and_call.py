"""Declare a machine, call its transitions: results, no-op answers, refusals."""

from __future__ import annotations

from enum import StrEnum

import msgspec
import pytest

from statemq import ANY, Client, Context, Fail, InvalidArguments, Machine, Reject, Rejected, transition
from statemq.errors import UnknownMachine
from tests.working import working


class Status(StrEnum):
    OFF = "OFF"
    ON = "ON"
    BROKEN = "BROKEN"


class Data(msgspec.Struct):
    brightness: int = 0
    switched: int = 0


class Lamp(Machine[Data, Status], initial=Status.OFF, final=Status.BROKEN, partitions=2):
    @transition(source=Status.OFF, target=Status.ON)
    async def turnOn(self, ctx: Context, brightness: int = 100) -> str:
        self.data.brightness = brightness
        self.data.switched += 1
        return f"{ctx.key} is on"

    @turnOn.when(Status.ON)
    def already_on(self, ctx: Context, brightness: int = 100) -> str:
        return f"{ctx.key} was on"

    @transition(source=Status.ON, target=Status.OFF)
    def turnOff(self) -> str:
        self.data.brightness = 0
        return f"{self.key} is off"

    @transition(source=Status.ON)
    def dim(self, by: int) -> int:
        if by > self.data.brightness:
            raise Reject(f"it has only {self.data.brightness}", code="too_dark")
        self.data.brightness -= by
        return self.data.brightness

    @transition(source=ANY, target=[Status.OFF, Status.BROKEN])
    def hit(self, hard: bool) -> str:
        self.state = Status.BROKEN if hard else Status.OFF
        return self.state

    @transition(source=ANY, target=Status.BROKEN)
    def explode(self) -> None:
        raise Fail("no explosives here")


async def test_a_call_returns_what_the_transition_returned(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Lamp):
        assert await client.call(Lamp.turnOn("desk", brightness=70), timeout=20) == "desk is on"
        lamp = await client.get(Lamp, "desk")
    assert (lamp.state, lamp.version, lamp.data, lamp.exists) == ("ON", 1, Data(brightness=70, switched=1), True)


async def test_names_do_as_well_as_the_class(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Lamp), Client(url, namespace=namespace) as stranger:
        handle = await stranger.send("lamp", "desk", "turnOn", {"brightness": 5})
        assert await handle.result(timeout=20) == "desk is on"
        assert handle.id.startswith("lamp.")
        assert await stranger.call("lamp", "desk", "dim", {"by": 2}, timeout=20) == 3


async def test_the_same_command_in_another_state_may_answer_and_change_nothing(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Lamp):
        await client.call(Lamp.turnOn("desk"), timeout=20)
        before = await client.get(Lamp, "desk")
        assert await client.call(Lamp.turnOn("desk"), timeout=20) == "desk was on"
        assert await client.get(Lamp, "desk") == before


async def test_a_command_that_fits_nowhere_is_rejected_with_what_would_fit(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Lamp):
        handle = await client.send(Lamp.turnOff("desk"))
        with pytest.raises(Rejected, match="lamp/desk is OFF; turnOff needs ON") as refused:
            await handle.result(timeout=20)
        assert refused.value.id == handle.id
        assert (refused.value.machine, refused.value.key, refused.value.transition) == ("lamp", "desk", "turnOff")
        assert (refused.value.state, refused.value.code) == ("OFF", "state")
        assert (await handle.outcome()).allowed == ["turnOn", "hit", "explode"]
        assert not (await client.get(Lamp, "desk")).exists  # a rejection creates nothing
        assert await client.list(Lamp) == []


async def test_a_body_may_reject_and_nothing_of_it_is_kept(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Lamp):
        await client.call(Lamp.turnOn("desk", brightness=10), timeout=20)
        with pytest.raises(Rejected, match="it has only 10") as refused:
            await client.call(Lamp.dim("desk", by=11), timeout=20)
        assert refused.value.code == "too_dark"
        assert await client.call(Lamp.dim("desk", by=4), timeout=20) == 6
        lamp = await client.get(Lamp, "desk")
        assert (lamp.state, lamp.version, lamp.visit) == ("ON", 2, 1)  # without a target the visit to ON goes on


async def test_several_targets_the_body_chooses_and_a_final_state_stays(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Lamp):
        assert await client.call(Lamp.hit("desk", hard=False), timeout=20) == "OFF"
        assert await client.call(Lamp.hit("desk", hard=True), timeout=20) == "BROKEN"
        with pytest.raises(Rejected, match="lamp/desk is BROKEN"):
            await client.call(Lamp.hit("desk", hard=False), timeout=20)


async def test_arguments_are_checked_before_anything_is_sent(client: Client, url: str, namespace: str) -> None:
    with pytest.raises(InvalidArguments, match='"by" is missing'):
        Lamp.dim("desk")  # type: ignore[call-arg]
    with pytest.raises(UnknownMachine, match="no process has declared"):
        await client.send("lamp", "desk", "turnOn")
    async with working(url, namespace, Lamp):
        with pytest.raises(InvalidArguments, match="brightness"):
            await client.send("lamp", "desk", "turnOn", {"brightness": "much"})


async def test_many_commands_of_one_key_run_in_the_order_they_were_sent(client: Client, url: str, namespace: str) -> None:
    handles = await client.send_many([Lamp.turnOn("desk", brightness=100), *(Lamp.dim("desk", by=1) for _ in range(60))])
    async with working(url, namespace, Lamp):
        assert [await handle.result(timeout=20) for handle in handles[1:]] == list(range(99, 39, -1))
