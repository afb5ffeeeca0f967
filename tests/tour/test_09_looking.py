"""Seeing: instances, lists by state and age, queries, history, who runs what."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from statemq import Cancelled, Client, Context, Machine, UsageError, query, transition
from tests.waiting import wait_until
from tests.working import working


class Data(msgspec.Struct):
    owner: str = ""


class Ticket(Machine[Data], initial="new", partitions=2):
    @transition(source="new", target="assigned")
    async def assign(self, ctx: Context, to: str, hold: bool = False) -> None:
        self.data.owner = to
        if hold:
            await asyncio.sleep(3600)

    @transition(source="assigned", target="done")
    def close(self) -> str:
        return self.data.owner

    @query
    def summary(self, loud: bool = False) -> str:
        text = f"{self.key} is {self.state}"
        return text.upper() if loud else text


async def test_an_untouched_key_is_in_the_initial_state_and_in_no_list(client: Client) -> None:
    ticket = await client.get(Ticket, "t1")
    assert (ticket.state, ticket.version, ticket.exists, ticket.data) == ("new", 0, False, Data(owner=""))
    assert await client.list(Ticket) == []
    assert await client.query(Ticket.summary("t1")) == "t1 is new"


async def test_lists_queries_and_history_tell_what_was_committed(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Ticket) as worker:
        for key in ("t1", "t2", "t3"):
            await client.call(Ticket.assign(key, to="ann"), timeout=20)
        assert await client.call(Ticket.close("t2"), timeout=20) == "ann"
        assert {row.key: row.state for row in await client.list(Ticket)} == {"t1": "assigned", "t2": "done", "t3": "assigned"}
        assert [row.key for row in await client.list(Ticket, state="assigned")] == ["t1", "t3"]
        assert await client.list(Ticket, state="assigned", older="1h") == []
        assert await client.query(Ticket.summary("t2", loud=True)) == "T2 IS DONE"
        history = await client.history(Ticket, "t2")
        assert [(e.transition, e.source, e.target, e.version, e.outcome) for e in history] == [
            ("assign", "", "assigned", 1, "completed"),
            ("close", "assigned", "done", 2, "completed"),
        ]
        (machine,) = await client.machines()
        assert (machine.name, machine.workers, machine.waiting, machine.in_state) == ("ticket", 1, 0, {"assigned": 2, "done": 1, "new": 0})
        assert [p.owner for p in await client.partitions(Ticket)] == [worker.id, worker.id]
        (info,) = await client.workers()
        assert (info.id, info.live, info.partitions) == (worker.id, True, [0, 1])


async def test_a_query_reads_the_committed_snapshot_while_a_transition_runs(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Ticket) as worker:
        handle = await client.send(Ticket.assign("t1", to="bob", hold=True))

        async def runs() -> bool:
            return (await handle.status()).status == "running"

        await wait_until(runs)
        status = await handle.status()
        assert (status.worker, status.key, status.args) == (worker.id, "t1", {"to": "bob", "hold": True})
        assert await client.query(Ticket.summary("t1")) == "t1 is new"
        await handle.cancel()
        with pytest.raises(Cancelled):
            await handle.result(timeout=20)


async def test_a_query_needs_the_class(client: Client, url: str, namespace: str) -> None:
    await client.get(Ticket, "t1")  # declares it
    async with Client(url, namespace=namespace) as stranger:
        with pytest.raises(UsageError, match="a query runs where the class is"):
            await stranger.query("ticket", "t1", "summary")
