"""What people see of a step that fails and is tried again, and of a command that waits behind another one of its instance."""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum
from typing import Any

import pytest

from statemq import Client, Context, Machine, Pending, Retry, events, transition
from statemq.codec import short_time
from statemq.http.views import command_view, queued_view
from statemq.keys import PartitionKeys
from statemq.store.router import Router
from tests.waiting import wait_until
from tests.working import working


class Phase(StrEnum):
    ON = "ON"


MENDED = asyncio.Event()
SLOW = Retry(attempts=100_000, first=0.02, cap=0.02)
tried: list[str] = []


async def flaky(name: str) -> str:
    tried.append(name)
    if not MENDED.is_set():
        raise ConnectionError(f"{name} is down")
    return name


class Work(Machine[None, Phase], initial=Phase.ON, partitions=1):
    @transition(source=Phase.ON)
    async def build(self, ctx: Context) -> str:
        await ctx.step("easy", easy)
        return await ctx.step("hard", flaky, "hard", retry=SLOW)

    @transition(source=Phase.ON)
    async def both(self, ctx: Context) -> None:
        await asyncio.gather(*(ctx.step(name, flaky, name, retry=SLOW) for name in ("left", "right")))

    @transition(source=Phase.ON)
    async def slow(self, ctx: Context, seconds: float = 86_400.0 * 14) -> None:
        await ctx.step("easy", easy)
        await ctx.sleep(seconds)

    @transition(source=Phase.ON)
    async def next(self, ctx: Context) -> str:
        return "done"


async def easy() -> None: ...


@pytest.fixture(autouse=True)
def broken() -> None:
    MENDED.clear()
    tried.clear()


@pytest.fixture
async def client(url: str, namespace: str) -> Any:
    async with Client(url, namespace=namespace, machines=[Work]) as opened:
        yield opened


async def until_retrying(client: Client, id: str, tries: int, *names: str) -> Any:
    async def look() -> Any:
        status = await client.show(id)
        shown = {step.name: step for step in status.retrying}
        return status if shown.keys() == set(names) and all(step.tries >= tries for step in shown.values()) else None

    return await wait_until(look)


async def test_a_step_that_is_tried_again_is_shown_with_tries_error_and_since_when(client: Client, url: str, namespace: str) -> None:
    began_ms = round(time.time() * 1000)
    async with working(url, namespace, Work):
        handle = await client.send(Work, "k", "build")
        status = await until_retrying(client, handle.id, 3, "hard")
        (step,) = status.retrying
        assert step.error == "ConnectionError: hard is down"
        assert began_ms - 1000 < step.since <= step.due
        later = await until_retrying(client, handle.id, step.tries + 2, "hard")
        assert later.retrying[0].since == step.since
        (row,) = await client.queue(Work, "k")
        assert [(step.name, step.error) for step in row.retrying] == [("hard", "ConnectionError: hard is down")]
        told = [command_view(later).retrying, queued_view(row).retrying]  # over HTTP
        assert [(step.name, step.error, step.since[-1]) for [step] in told] == [("hard", "ConnectionError: hard is down", "Z")] * 2
        with pytest.raises(Pending, match=r"its step hard has failed \d+ times, and is tried again: ConnectionError: hard is down"):
            await client.handle(handle.id).result(timeout=0.2)
        MENDED.set()
        assert await handle.result(60) == "hard"
        assert (await client.show(handle.id)).retrying == []


async def test_branches_are_told_apart_and_what_has_ended_is_not_shown(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Work):
        handle = await client.send(Work, "k", "both")
        await until_retrying(client, handle.id, 2, "left", "right")
        MENDED.set()
        await handle.result(60)


async def test_the_next_owner_goes_on_counting(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Work):
        handle = await client.send(Work, "k", "build")
        before = (await until_retrying(client, handle.id, 3, "hard")).retrying[0]
    (step,) = (await client.show(handle.id)).retrying  # nobody works, and it can still be seen
    assert step.tries >= before.tries
    async with working(url, namespace, Work):
        after = (await until_retrying(client, handle.id, step.tries + 1, "hard")).retrying[0]
        assert after.since == before.since
        MENDED.set()
        await handle.result(60)


async def test_a_step_that_succeeds_at_once_stores_nothing_more(client: Client, url: str, namespace: str, router: Router) -> None:
    MENDED.set()
    part = PartitionKeys(namespace, "work", 0)
    async with working(url, namespace, Work):
        handle = await client.send(Work, "k", "slow", {"seconds": 3600})

        async def sleeps() -> Any:
            fields = await router.call(part.lease, "HKEYS", part.steps(handle.id))
            return fields if b"sleep@1" in fields else None

        fields = await wait_until(sleeps)
        assert b"@tries" not in fields
        await client.cancel(handle.id)
        await handle.outcome(60)


async def test_rubbish_in_the_field_hurts_nobody(client: Client, url: str, namespace: str, router: Router) -> None:
    part = PartitionKeys(namespace, "work", 0)
    async with working(url, namespace, Work):
        handle = await client.send(Work, "k", "build")
        await until_retrying(client, handle.id, 1, "hard")
    for rubbish in ("no json", "[1]", '{"hard": 3}', '{"hard": {"tries": "x", "since": [], "error": {}}}', "\xff"):
        await router.call(part.lease, "HSET", part.steps(handle.id), "@tries", rubbish)
        await client.show(handle.id)
        await client.queue(Work, "k")
    async with working(url, namespace, Work):
        await until_retrying(client, handle.id, 2, "hard")
        MENDED.set()
        assert await handle.result(60) == "hard"


async def test_what_waits_says_behind_what(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Work):
        assert (await client.can(Work, "k", "next")).behind == ""
        slow = await client.send(Work, "k", "slow")

        async def asleep() -> Any:
            status = await client.show(slow.id)
            return status if status.status == "waiting" else None

        until = short_time((await wait_until(asleep)).due, round(time.time() * 1000), seconds=False)
        first, second = [await client.send(Work, "k", "next") for _ in range(2)]
        assert (await client.show(slow.id)).behind == ""
        assert (await client.show(first.id)).behind == f"slow, which sleeps until {until}"
        assert (await client.show(second.id)).behind == f"slow, which sleeps until {until}, and 1 more"
        assert (await client.can(Work, "k", "next")).behind == f"slow, which sleeps until {until}, and 2 more"
        with pytest.raises(Pending, match=f"it waits behind slow, which sleeps until {until}$"):
            await first.result(timeout=0.1)
        await client.cancel(slow.id)
        assert await second.result(60) == "done"
        building = await client.send(Work, "k", "build")
        await until_retrying(client, building.id, 2, "hard")
        waits = await client.send(Work, "k", "next")
        told = (await client.show(waits.id)).behind
        assert told.startswith("build, which runs the step hard, which has failed ")
        MENDED.set()
        assert await waits.result(60) == "done"


@pytest.mark.leaves_work
async def test_what_waits_where_nobody_works_is_said_too(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Work):
        pass
    await client.send(Work, "k", "next")
    second = await client.send(Work, "k", "next")
    assert (await client.show(second.id)).behind == "next, which waits, too"


async def test_a_takeovers_line_has_the_time_of_the_whole_transition(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Work):
        handle = await client.send(Work, "k", "build")
        await until_retrying(client, handle.id, 2, "hard")
    await asyncio.sleep(1)
    MENDED.set()
    told: list[events.Event] = []
    events.followers.append(told.append)
    try:
        async with working(url, namespace, Work):
            await handle.outcome(60)
            ended = await wait_until(lambda: next((e for e in told if isinstance(e, events.Ended)), None))
    finally:
        events.followers.remove(told.append)
    assert ended.took_ms >= 1000  # the last attempt alone took some ms
