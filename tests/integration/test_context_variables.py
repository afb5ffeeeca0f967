"""Context variables: what one attempt, guard or query sets, no other sees; what was set before the worker was started, all see."""

from __future__ import annotations

import contextvars
import decimal
from collections.abc import AsyncIterator

import pytest

from statemq import Client, Context, Machine, Retry, query, transition
from tests.working import working

seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="")
started: contextvars.ContextVar[str] = contextvars.ContextVar("started", default="")
log: list[str] = []


def swap(name: str) -> str:
    before = seen.get()
    seen.set(name)
    return before


def guards(self: Tagged, name: str) -> bool:
    log.append(swap(f"guard {name}"))
    return True


class Tagged(Machine[None], initial="idle", retry=Retry(attempts=3, first=0.001), partitions=2):
    @transition(source="idle")
    def purely(self, ctx: Context, name: str) -> str:
        return swap(name)

    @transition(source="idle")
    async def waits(self, ctx: Context, name: str) -> str:
        before = swap(name)
        inner = await ctx.step("inner", seen.get)
        await ctx.sleep(0.001)
        return before + (seen.get() if inner == name else "its step did not see it")[len(name) :]

    @transition(source="idle", guard=guards)
    def guarded(self, name: str) -> str:
        return swap(name)

    @transition(source="idle")
    def tries(self, ctx: Context, name: str) -> str:
        before = swap(name)
        if ctx.attempt < 3:
            raise ConnectionError(name)
        return before

    @transition(source="idle")
    async def tries_waiting(self, ctx: Context, name: str) -> str:
        before = swap(name)
        if ctx.attempt < 3:
            raise ConnectionError(name)
        return before

    @transition(source="idle")
    def was(self) -> str:
        return started.get()

    @transition(source="idle")
    async def was_waiting(self) -> str:
        return started.get()

    @query
    def asked(self, name: str) -> str:
        return swap(name)


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    log.clear()
    async with Client(url, namespace=namespace, machines=[Tagged]) as opened:
        yield opened


async def test_what_one_sets_no_other_sees(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Tagged):
        for command in (Tagged.purely, Tagged.waits, Tagged.guarded, Tagged.tries, Tagged.tries_waiting):
            handles = await client.send_many([command(f"k{i % 8}", name=f"k{i}") for i in range(40)])
            assert {await handle.result(timeout=20) for handle in handles} == {""}, command
    assert set(log) == {""}


async def test_a_query_and_a_guard_that_is_asked_leave_nothing_to_their_caller(client: Client, url: str, namespace: str) -> None:
    seen.set("mine")
    for _ in range(2):
        assert await client.query(Tagged, "a", "asked", {"name": "a query's"}) == "mine"
        assert (await client.can(Tagged, "a", "guarded", {"name": "a"})).allowed
    assert (seen.get(), log) == ("mine", ["mine", "mine"])


async def test_what_was_set_before_the_worker_began_is_seen(client: Client, url: str, namespace: str) -> None:
    started.set("before")
    async with working(url, namespace, Tagged):
        assert await client.call(Tagged.was("a"), timeout=20) == "before"
        assert await client.call(Tagged.was_waiting("a"), timeout=20) == "before"


class Priced(Machine[None], initial="idle", partitions=1):
    @transition(source="idle")
    def purely(self, digits: int) -> int:
        before = decimal.getcontext().prec
        decimal.getcontext().prec = digits
        return before

    @transition(source="idle")
    async def waits(self, digits: int) -> int:
        before = decimal.getcontext().prec
        decimal.getcontext().prec = digits
        return before

    @query
    def asked(self, digits: int) -> int:
        before = decimal.getcontext().prec
        decimal.getcontext().prec = digits
        return before


async def test_how_one_computes_with_decimals_is_no_other_s_business(url: str, namespace: str) -> None:
    decimal.getcontext().prec = 28  # the context holds one from here on, as after any arithmetic at import
    async with working(url, namespace, Priced), Client(url, namespace=namespace, machines=[Priced]) as client:
        for digits in (5, 6):
            assert await client.call(Priced.purely(f"p{digits}", digits=digits), timeout=20) == 28
            assert await client.call(Priced.waits(f"w{digits}", digits=digits), timeout=20) == 28
            assert await client.query(Priced, "p5", "asked", {"digits": digits}) == 28
    assert decimal.getcontext().prec == 28
