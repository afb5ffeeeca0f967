"""I8: each log has a cap, whatever kind of commands come, one at a time or together; and nothing else of a command outlives its end."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import pytest

from statemq import Client, Context, Fail, Failed, Machine, Reject, Rejected, transition
from statemq.store import audit, fence, operate
from tests.integration.races.stage import stage
from tests.working import working

CAP = 20
SLACK = 100 + 16 + 10
"""A log is trimmed by whole nodes of 100 entries, a history at every sixteenth commit of a tenure, which here are mostly of one command."""

N = 220


class Kinds(Machine[None], initial="on", partitions=1):
    @transition(source="on")
    def pure(self) -> None:
        pass

    @transition(source="on")
    async def alone(self) -> None:
        pass

    @transition(source="on")
    async def steps(self, ctx: Context, n: int = 1) -> None:
        for _ in range(n):
            await ctx.step("step", _nothing)

    @transition(source="on")
    async def sleeps(self, ctx: Context) -> None:
        await ctx.sleep(0.001)

    @transition(source="on")
    def rejects(self) -> None:
        raise Reject("no")

    @transition(source="on")
    async def rejects_late(self, ctx: Context) -> None:
        await ctx.step("step", _nothing)
        raise Reject("no")

    @transition(source="on")
    def fails(self) -> None:
        raise Fail("for good")


async def _nothing() -> None:
    pass


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fence, operate):
        monkeypatch.setattr(module, "HISTORY_CAP", CAP)
    monkeypatch.setattr(fence, "FAILED_CAP", CAP)
    monkeypatch.setattr(audit, "AUDIT_CAP", CAP)


LOADS: dict[str, Callable[[Client, int], Awaitable[object]]] = {
    "pure": lambda c, n: c.call(Kinds.pure("k")),
    "each another key": lambda c, n: c.call(Kinds.pure(f"k{n}")),
    "async": lambda c, n: c.call(Kinds.alone("k")),
    "one step": lambda c, n: c.call(Kinds.steps("k")),
    "two steps": lambda c, n: c.call(Kinds.steps("k", 2)),
    "fourteen steps": lambda c, n: c.call(Kinds.steps("k", 14)),  # with its start and its commit sixteen calls
    "sleeps": lambda c, n: c.call(Kinds.sleeps("k")),
    "rejected": lambda c, n: c.call(Kinds.rejects("k")),
    "rejected after a step": lambda c, n: c.call(Kinds.rejects_late("k")),
    "failed": lambda c, n: c.call(Kinds.fails("k")),
    "idempotent": lambda c, n: c.call(Kinds.alone("k"), idempotency_key=f"{n}"),
    "delayed": lambda c, n: c.call(Kinds.pure("k"), delay=0.001),
    "refused by state": lambda c, n: c.call(Kinds.pure("k"), if_version=7),
    "many at once": lambda c, n: c.send_many([Kinds.alone(f"k{n}-{i}") for i in range(5)]),
}


@pytest.mark.parametrize("load", LOADS)
async def test_a_log_keeps_its_cap(url: str, namespace: str, load: str) -> None:
    async with stage(url, namespace, Kinds) as play, working(url, namespace, Kinds):
        for n in range(N):
            with contextlib.suppress(Rejected, Failed):
                await LOADS[load](play.client, n)
        await play.client.call(Kinds.alone("k"))
        assert CAP <= play.redis.xlen(play.part.history) <= CAP + SLACK * (2 if load == "many at once" else 1)
        assert play.redis.xlen(play.part.failed) <= (CAP + SLACK if load == "failed" else 0)
        for name in (play.part.accepted, play.part.timers, play.part.timers_data, play.part.ready):
            assert not play.redis.exists(name), name
        assert not play.redis.keys(f"{play.part.steps_}*")
        assert all(play.redis.ttl(name) > 0 for name in play.redis.keys(f"{play.part.once_}*"))


@pytest.mark.leaves_work
async def test_cancelled_commands_leave_no_more_than_the_caps(url: str, namespace: str) -> None:
    async with stage(url, namespace, Kinds) as play:
        await play.own()
        for n in range(N):
            how = {"delay": 1000.0} if n % 3 == 0 else {"idempotency_key": str(n)} if n % 3 == 1 else {}
            handle = await play.client.send(Kinds.alone(f"k{n % 7}"), **how)
            assert await handle.cancel() == "cancelled"
        assert CAP <= play.redis.xlen(play.part.history) <= CAP + SLACK
        assert CAP <= play.redis.xlen(f"{namespace}:{{kinds}}:audit") <= CAP + SLACK
        assert set(play.redis.hkeys(play.part.accepted)) == {f"@look:k{n}" for n in range(7)} | {"@look:"}
        assert not play.redis.exists(play.part.timers) and not play.redis.exists(play.part.timers_data)
        assert all(play.redis.ttl(name) > 0 for name in play.redis.keys(f"{play.part.once_}*"))


@pytest.mark.leaves_work
async def test_commands_removed_by_hand_leave_no_more_than_the_caps(url: str, namespace: str) -> None:
    async with stage(url, namespace, Kinds) as play:
        owner = await play.own()
        for n in range(N):
            handle = await play.client.send(Kinds.alone("k"), **({"delay": 1000.0} if n % 2 else {}))
            where = play.redis.hget(play.part.accepted, handle.id)
            play.redis.zrem(play.part.timers, handle.id)
            if where != "timer":
                play.redis.xdel(play.part.commands, where)
            swept = await owner.answer(owner.sweep([(handle.id, where, b'{"id":"' + handle.id.encode() + b'"}')]))
            assert swept == [b"done", handle.id.encode()]
        assert CAP <= play.redis.xlen(play.part.history) <= CAP + SLACK
        assert not play.redis.exists(play.part.timers) and not play.redis.exists(play.part.timers_data)
