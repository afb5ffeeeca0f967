"""Operators: a command is cancelled wherever it is; an instance or a whole machine is paused and goes on later."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from statemq import Cancelled, Client, Context, Machine, transition
from tests.waiting import wait_until
from tests.working import working

events: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def forget() -> None:
    events.clear()


async def prepare() -> None:
    events["prepared"] += 1


class Job(Machine[None], initial="idle", partitions=2):
    @transition(source="idle")
    async def work(self, ctx: Context, step: bool) -> None:
        if step:
            await ctx.step("prepare", prepare)
        events["running"] += 1
        try:
            await asyncio.sleep(3600)
        finally:
            events["closed"] += 1

    @transition(source="idle")
    def ping(self) -> str:
        return self.key


@pytest.mark.parametrize("step", [True, False])
async def test_a_running_command_is_closed(client: Client, url: str, namespace: str, step: bool) -> None:
    async with working(url, namespace, Job):
        handle = await client.send(Job.work("a", step=step))
        await wait_until(lambda: events["running"])
        assert await handle.cancel() == "asked"  # never "cancelled": it has begun
        with pytest.raises(Cancelled):
            await handle.result(timeout=20)
        assert await client.call(Job.ping("a"), timeout=20) == "a"
        assert events["closed"] == 1
        assert await handle.cancel() in ("cancelled", "ended")


async def test_a_queued_and_a_delayed_one_end_without_having_run(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Job):
        await client.send(Job.work("a", step=True))
        await wait_until(lambda: events["running"])
        queued = await client.send(Job.ping("a"))
        delayed = await client.send(Job.ping("a"), delay=3600)
        for handle in (queued, delayed):
            assert await handle.cancel() == "cancelled"
            with pytest.raises(Cancelled):
                await handle.result(timeout=20)
        (running,) = [row for row in await client.queue(Job, "a") if row.status == "running"]
        assert await client.cancel(running.id) == "asked"
        assert await client.call(Job.ping("a"), timeout=20) == "a"
        assert Counter(entry.outcome for entry in await client.history(Job)) == {"cancelled": 3, "completed": 1}


async def test_a_paused_instance_starts_nothing_until_it_is_resumed(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Job):
        await client.pause(Job, "a")
        handle = await client.send(Job.ping("a"))
        assert await client.call(Job.ping("b"), timeout=20) == "b"

        async def parked() -> bool:
            return [row.where for row in await client.queue(Job, "a")] == ["inbox"]

        await wait_until(parked)
        assert (await client.get(Job, "a")).paused
        assert (await client.can(Job, "a", "ping")).paused == "job/a"
        assert (await handle.status()).paused == "job/a"
        await client.resume(Job, "a")
        assert await handle.result(timeout=20) == "a"


async def test_a_paused_machine_starts_nothing_anywhere(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Job) as worker:
        await client.pause(Job)
        await wait_until(lambda: all(p.paused for p in worker.partitions.values()))
        handles = await client.send_many([Job.ping(key) for key in "abcd"])
        assert [m.paused for m in await client.machines()] == [True]
        assert (await client.can(Job, "a", "ping")).paused == "job"
        assert len(await client.queue(Job)) == 4
        await client.resume(Job)
        assert [await h.result(timeout=20) for h in handles] == list("abcd")


async def test_a_pause_outlasts_the_worker(client: Client, url: str, namespace: str) -> None:
    await client.pause(Job, "a")
    handle = await client.send(Job.ping("a"))
    async with working(url, namespace, Job):
        assert await client.call(Job.ping("b"), timeout=20) == "b"
    async with working(url, namespace, Job):
        await client.resume(Job, "a")
        assert await handle.result(timeout=20) == "a"
