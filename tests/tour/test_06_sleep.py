"""``ctx.sleep`` is durable: a long one leaves memory, and the journal brings the body back to where it was."""

from __future__ import annotations

from collections import Counter

import pytest

from statemq import Cancelled, Client, Context, Machine, transition
from tests.waiting import wait_until
from tests.working import working

ran: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def forget() -> None:
    ran.clear()


async def bake() -> str:
    ran["bake"] += 1
    return "bread"


class Oven(Machine[None], initial="cold", partitions=2):
    @transition(source="cold")
    async def use(self, ctx: Context, seconds: float) -> str:
        ran["body"] += 1
        bread = await ctx.step("bake", bake)
        try:
            await ctx.sleep(seconds)
        finally:
            ran["finally"] += 1
        return bread

    @transition(source="cold")
    def look(self) -> str:
        return self.key


async def test_a_short_sleep_stays_in_memory(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Oven, suspend_after_s=60):
        assert await client.call(Oven.use("a", seconds=0.05), timeout=20) == "bread"
    assert ran == {"body": 1, "bake": 1, "finally": 1}


async def test_a_long_sleep_closes_the_body_and_replays_it_when_it_is_over(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Oven, suspend_after_s=0.01):
        handle = await client.send(Oven.use("a", seconds=0.3))
        assert await handle.result(timeout=20) == "bread"
        assert (await handle.outcome()).attempts == 1  # waiting is no failed attempt
    assert ran["bake"] == 1
    assert ran["body"] == ran["finally"] > 1


async def test_others_go_on_meanwhile_and_the_key_itself_waits(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Oven, suspend_after_s=0.01, concurrency=1):
        sleeper = await client.send(Oven.use("a", seconds=3600))
        behind = await client.send(Oven.look("a"))

        async def waits() -> bool:
            return (await sleeper.status()).status == "waiting"

        await wait_until(waits)
        assert await client.call(Oven.look("b"), timeout=20) == "b"  # even with one slot
        status = await sleeper.status()
        assert [step.name for step in status.steps] == ["bake", "sleep@1"]
        assert (await behind.status()).status == "queued"
        assert [(row.id, row.status, row.where) for row in await client.queue(Oven, "a")] == [
            (sleeper.id, "waiting", "inbox"),
            (behind.id, "queued", "inbox"),
        ]
        assert await sleeper.cancel() == "asked"
        with pytest.raises(Cancelled):
            await sleeper.result(timeout=20)
        assert await behind.result(timeout=20) == "a"


async def test_a_sleep_goes_on_under_the_next_worker_with_what_was_left_of_it(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Oven, suspend_after_s=0.01):
        handle = await client.send(Oven.use("a", seconds=0.5))

        async def waits() -> bool:
            return (await handle.status()).status in ("waiting", "completed")

        await wait_until(waits)
        due = (await handle.status()).due
    async with working(url, namespace, Oven):
        assert await handle.result(timeout=20) == "bread"
        assert (await handle.outcome()).at >= due
    assert ran["bake"] == 1
