"""Instances in a state that the class does not have any more are seen, and can be brought out of it."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from statemq import Client, Machine, StatemqError, UnknownTransition, query, transition
from statemq.config import FORMER_STATES
from statemq.doctor.examine import examine
from statemq.doctor.finding import Level
from statemq.store.declare import declare, read_config
from statemq.store.router import Router
from tests.command_line import run_here
from tests.working import working


class First(Machine[None], initial="new", name="order", partitions=2):
    @transition(source="new", target="held")
    def hold(self) -> None: ...


class Second(Machine[None], initial="new", name="order", partitions=2):
    @transition(source="new", target="paid")
    def pay(self) -> None: ...

    @query
    def is_paid(self) -> bool:
        return self.state == "paid"


class Third(Machine[None], initial="new", name="order", partitions=2, legacy="held"):
    @transition(source=["new", "held"], target="paid")
    def pay(self) -> None: ...


async def states(url: str, namespace: str, machine: type[Machine] | str = "order") -> dict[str, tuple[str, bool]]:
    async with Client(url, namespace=namespace) as client:
        return {row.key: (row.state, row.declared) for row in await client.list(machine)}


async def test_instances_in_a_state_that_was_taken_out_are_shown_and_come_out_of_it(url: str, namespace: str) -> None:
    keys = [f"k{n}" for n in range(20)]
    async with working(url, namespace, First), Client(url, namespace=namespace) as client:
        for key in keys:
            await client.call(First.hold(key))
        assert await states(url, namespace) == dict.fromkeys(keys, ("held", True))
        assert set(await states(url, namespace, Second)) == set(keys), "a class that is not deployed yet sees them"
    async with working(url, namespace, Second), Client(url, namespace=namespace, machines=[Second]) as client:
        await client.call(Second.pay("other"))
        seen = dict.fromkeys(keys, ("held", False)) | {"other": ("paid", True)}
        for machine in ("order", First, Second):
            assert await states(url, namespace, machine) == seen
        assert {row.key for row in await client.list(Second, state="held")} == set(keys)
        assert (await client.machines())[0].in_state == {"new": 0, "paid": 1, "held": 20}
        with pytest.raises(StatemqError, match="order/k0 is in state held, which this version of order does not declare"):
            await client.query(Second, "k0", "is_paid")

        with pytest.raises(UnknownTransition, match='no state "gone"; it has: new, paid, held'):
            await client.list(Second, state="gone")
        (line,) = [line for line in await examine(url, namespace, ["order"]) if line.check == "states"]
        assert line.level is Level.warn
        assert re.fullmatch(
            "20 instances are in held, which the class does not declare any more: (k[0-9]+, ){4}k[0-9]+ and 15 more", line.text
        )
        way_out = 'deploy a class that has held again, with legacy="held" and a transition out of it, or the former version'
        assert line.todo == f"{way_out}; statemq list order --state held lists them"
    where = ["--redis", url, "--namespace", namespace]
    done = await asyncio.to_thread(run_here, "list", "order", "--state", "held", *where)
    assert done.stdout.count("not declared") == 20, done
    assert way_out in done.stderr
    done = await asyncio.to_thread(run_here, "list", "order", "--json", *where)
    assert {json.loads(row)["declared"] for row in done.stdout.splitlines()} == {True, False}
    async with working(url, namespace, Third), Client(url, namespace=namespace) as client:
        for key in keys:
            await client.call(Third.pay(key))
        assert await states(url, namespace) == dict.fromkeys([*keys, "other"], ("paid", True))
        assert {line.level for line in await examine(url, namespace, ["order"]) if line.check == "states"} == {Level.ok}


async def test_former_states_outlast_deployments_in_any_order_and_are_bounded(router: Router, namespace: str) -> None:
    async def deployed(*states: str) -> list[str]:
        await declare(router, namespace, "order", 1, {"states": states}, update=True)
        return (await read_config(router, namespace, "order")).former

    assert await deployed("a", "b") == []
    assert await deployed("a", "c") == ["b"]
    assert await deployed("a", "c") == ["b"]
    assert await deployed("d") == ["b", "a", "c"]
    assert await deployed("a", "b") == ["c", "d"]
    many = [f"s{n}" for n in range(FORMER_STATES)]
    assert await deployed(*many) == ["c", "d", "a", "b"]
    assert await deployed("last") == many
    assert await deployed("z") == [*many[1:], "last"]
