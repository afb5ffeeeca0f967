"""Branches of a body on a server: they keep to plain asyncio's times and decisions through suspensions, kills and retries."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from statemq import Cancelled, Client, Context, Failed, Machine, Retry, transition
from statemq.keys import PartitionKeys
from statemq.store.commands import Queued
from statemq.worker.partition import Partition
from statemq.worker.pure import uuid_of
from statemq.worker.step import args_digest
from tests.waiting import wait_until
from tests.working import working

ran: Counter[str] = Counter()
seen: list[Any] = []
gate = threading.Event()


async def mark(name: str = "", s: float = 0.0) -> str:
    ran[name] += 1
    await asyncio.sleep(s)
    return name


async def stuck(name: str) -> None:
    ran[name] += 1
    await asyncio.sleep(600)


class Tree(Machine[None], initial="on", partitions=1, retry=Retry(attempts=3, first=0.001)):
    @transition(source="on")
    async def waits_plainly(self, ctx: Context) -> float:
        began = time.monotonic()

        async def plain() -> float:
            ran["plain"] += 1
            await asyncio.to_thread(time.sleep, 0.4)
            return time.monotonic() - began

        _, took = await asyncio.gather(ctx.sleep(1.2), plain())
        return took

    @transition(source="on")
    async def waits_for_the_gate(self, ctx: Context) -> None:
        async def plain() -> None:
            ran["plain"] += 1
            await asyncio.to_thread(gate.wait, 60)
            await ctx.step("passed", mark, "passed")

        await asyncio.gather(ctx.sleep(3600), plain(), *(ctx.sleep(3600) for _ in range(300)))

    @transition(source="on")
    async def races(self, ctx: Context) -> str:
        step, limit = asyncio.ensure_future(ctx.step("work", mark, "work", 0.3)), asyncio.ensure_future(ctx.sleep(20))
        done, _ = await asyncio.wait({step, limit}, return_when=asyncio.FIRST_COMPLETED)
        limit.cancel()
        return "step" if step in done else "sleep"

    @transition(source="on")
    async def races_and_sleeps(self, ctx: Context) -> list[str]:
        """By the time of the replay, the sleep that lost is over as well."""
        step, limit = asyncio.ensure_future(ctx.step("work", mark, "work", 0.1)), asyncio.ensure_future(ctx.sleep(0.5))
        done, _ = await asyncio.wait({step, limit}, return_when=asyncio.FIRST_COMPLETED)
        won = "step" if limit not in done else "sleep"
        limit.cancel()
        await ctx.sleep(1.0)
        return [won, await ctx.step(f"tell {won}", mark, f"tell {won}")]

    @transition(source="on")
    async def times_out(self, ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.5):
                await ctx.sleep(30)
        except TimeoutError:
            return "late"
        return "slept"

    @transition(source="on")
    async def times_out_durably(self, ctx: Context, limit: float, s: float) -> str:
        seen.append("begun")
        try:
            async with ctx.timeout(limit):
                await ctx.step("before", mark, "before")
                await ctx.sleep(s)
                word = "slept"
        except TimeoutError as error:
            word = f"late: {error}"
        await ctx.sleep(0.3)
        return await ctx.step(word, mark, word)

    @transition(source="on")
    async def draws(self, ctx: Context) -> None:
        drawn: list[Any] = [ctx.now()]

        async def branch(name: str, s: float) -> None:
            await ctx.step(name, mark, name)
            await asyncio.sleep(s if ctx.attempt == 1 else 0.2 - s)
            drawn.append([name, ctx.uuid(), ctx.uuid(name="own"), ctx.random.random(), ctx.now()])
            await ctx.step(f"{name} again", mark, f"{name} again")

        await asyncio.gather(branch("a", 0.15), branch("b", 0.02))
        drawn += [ctx.now(), ctx.uuid()]
        seen.append(sorted(drawn, key=str))
        if ctx.attempt < 3:
            raise ConnectionError("again")

    @transition(source="on")
    async def tells_the_time(self, ctx: Context) -> None:
        seen.append(ctx.now())
        await ctx.step("mark", mark, "mark", 0.05 if len(seen) > 1 else 600)

    @transition(source="on")
    async def naps(self, ctx: Context, s: float) -> bool:
        await ctx.sleep(s)
        return True

    @transition(source="on")
    async def forgets(self, ctx: Context, what: str) -> str:
        if what == "step":
            ctx.step("charge", mark, "charge")
        elif what == "sleep":
            ctx.sleep(1)
        elif what == "time-out":
            ctx.timeout(1)
        elif what == "time-out by name":
            ctx.timeout(1, name="limit")
            await ctx.step("charge", mark, "charge")
        elif what == "time-out in a branch":

            async def bounds() -> None:
                ctx.timeout(1)

            await asyncio.gather(bounds(), ctx.sleep(0.01))
        elif what == "time-out that raises":
            limit = ctx.timeout(1)
            raise ConnectionError(f"what it raised {limit is None}")
        elif what == "time-out entered":
            first = ctx.timeout(60)
            await ctx.step("charge", mark, "charge")
            async with first, ctx.timeout(60):
                await ctx.sleep(0.01)
        elif what == "time-out, cancelled":

            async def later(stop: bool) -> None:
                limit = ctx.timeout(60)
                if stop:
                    raise ValueError
                await asyncio.sleep(60)
                async with limit:
                    pass

            task = asyncio.create_task(later(False))
            await asyncio.gather(asyncio.sleep(0.01), later(True), return_exceptions=True)
            task.cancel()
        elif what == "time-out twice":
            twice = ctx.timeout(60)
            async with twice:
                pass
            async with twice:
                pass
        elif what == "task":
            asyncio.create_task(ctx.step("charge", mark, "charge"))  # type: ignore[arg-type]  # noqa: RUF006
        elif what == "running":
            asyncio.create_task(ctx.step("charge", stuck, "charge"))  # type: ignore[arg-type]  # noqa: RUF006
            await asyncio.sleep(0.05)
        elif what == "branch":

            async def audit() -> None:
                await ctx.step("audit", mark, "audit")

            asyncio.create_task(audit())  # noqa: RUF006
        elif what == "raises":
            ctx.step("charge", mark, "charge")
            raise ConnectionError("what it raised")
        elif what == "cancelled":
            task = asyncio.create_task(ctx.step("charge", stuck, "charge"))  # type: ignore[arg-type]
            await asyncio.sleep(0.05)
            task.cancel()
        elif what == "unbegun":
            asyncio.create_task(ctx.step("charge", mark, "charge")).cancel()  # type: ignore[arg-type]
        elif what == "loser":
            asyncio.create_task(ctx.sleep(600))  # type: ignore[arg-type]  # noqa: RUF006
            await asyncio.sleep(0.05)
        return "done"

    @transition(source="on")
    async def was_begun_before(self, ctx: Context) -> list[str]:
        async def first() -> None:
            await ctx.sleep(600)
            ctx.uuid()

        async def second() -> str:
            await ctx.sleep(600)
            key = str(ctx.uuid())
            return await ctx.step("key", mark, key)

        paid = await ctx.step("pay#2", mark)
        _, key = await asyncio.gather(first(), second())
        return [paid, key]

    @transition(source="on")
    async def numbers(self, ctx: Context) -> list[str]:
        return [await ctx.step("pay", mark, "1"), await ctx.step("pay", mark, "2"), await ctx.step("pay#2", mark, "3")]


@pytest.fixture(autouse=True)
def forget() -> None:
    ran.clear()
    seen.clear()
    gate.clear()


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Tree]) as opened:
        yield opened


async def test_a_plain_await_beside_a_sleep_goes_on(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Tree, suspend_after_s=0.01):
        assert await client.call(Tree.waits_plainly("a"), timeout=20) < 1.1
    assert ran["plain"] <= 2, "it was dropped again and again, or begun anew for each look"


async def test_a_body_stays_in_memory_while_one_branch_stands_in_a_plain_await(client: Client, url: str, namespace: str) -> None:
    """And leaves it when all wait durably: not for one of them only."""
    async with working(url, namespace, Tree, suspend_after_s=0.01) as worker:
        (partition,) = worker.partitions.values()
        handle = await client.send(Tree.waits_for_the_gate("a"))
        await wait_until(lambda: ran["plain"])
        attempt = partition.lanes["a"].attempt
        assert attempt is not None
        await wait_until(lambda: len(attempt.branches.held) == 301 and attempt.waits._moved_s < asyncio.get_running_loop().time() - 0.5)
        assert len(attempt.branches._free) == 2, "a look at whether all is quiet costs more, the more sleep"
        gate.set()
        await wait_until(lambda: ran["passed"])
        assert ran["plain"] == 1
        await wait_until(lambda: attempt.stopped == "suspend")
        await client.cancel(handle.id)
        with pytest.raises(Cancelled):
            await handle.result(timeout=20)


async def test_who_wins_a_race_is_heard_at_once(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Tree, suspend_after_s=0.01):
        assert await client.call(Tree.races("a"), timeout=15) == "step"


async def test_who_won_a_race_has_won_it_also_in_a_replay(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Tree, suspend_after_s=0.01):
        assert await client.call(Tree.races_and_sleeps("a"), timeout=20) == ["step", "tell step"]
    assert ran == {"work": 1, "tell step": 1}


async def test_a_time_out_of_asyncios_fires_around_a_long_sleep(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Tree, suspend_after_s=0.05):
        assert await client.call(Tree.times_out("a"), timeout=15) == "late"


@pytest.mark.parametrize(("limit", "s", "word"), [(0.4, 60, "late: the block did not end within 400 ms"), (60, 0.4, "slept")])
async def test_a_durable_time_out_holds_over_suspensions(
    client: Client, url: str, namespace: str, limit: float, s: float, word: str
) -> None:
    async with working(url, namespace, Tree, suspend_after_s=0.01):
        assert await client.call(Tree.times_out_durably("a", limit=limit, s=s), timeout=20) == word
    assert len(seen) > 1, "it never left memory"
    assert ran == {"before": 1, word: 1}


async def test_a_durable_time_out_goes_on_under_the_next_owner(client: Client, url: str, namespace: str) -> None:
    """Its worker is gone when it is due; the deadline stays where it was."""
    async with working(url, namespace, Tree, suspend_after_s=0.01):
        handle = await client.send(Tree.times_out_durably("a", limit=1.0, s=600))
        await wait_until(lambda: ran["before"])
    async with working(url, namespace, Tree):
        assert str(await handle.result(timeout=20)).startswith("late")
    assert ran["before"] == 1


async def test_branches_draw_the_same_at_each_attempt(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Tree):
        await client.call(Tree.draws("a"), timeout=20)
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]
    assert set(ran.values()) == {1}


async def test_the_time_before_the_first_record_is_that_of_all_attempts(client: Client, url: str, namespace: str) -> None:
    """Its worker goes in the middle of the first step, which had the time as its argument or key."""
    async with working(url, namespace, Tree, grace_s=0.1):
        handle = await client.send(Tree.tells_the_time("a"))
        await wait_until(lambda: ran["mark"])
    await asyncio.sleep(0.05)
    async with working(url, namespace, Tree):
        await handle.result(timeout=20)
    assert len(seen) == 2
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("step", "step charge was called but never awaited"),
        ("sleep", "sleep 1 was called but never awaited"),
        ("time-out", "timeout 1 was called but never entered"),
        ("time-out by name", "timeout limit was called but never entered"),
        ("time-out in a branch", r"timeout bounds@1\.1 was called but never entered"),
        ("time-out that raises", "what it raised"),
        ("time-out entered", ""),
        ("time-out, cancelled", ""),
        ("time-out twice", "is for one block; call it anew for each"),
        ("task", "step charge was still running when the transition returned; await or cancel it"),
        ("running", "step charge was still running when the transition returned; await or cancel it"),
        ("branch", "audit had not begun when the transition returned; await or cancel its task"),
        ("raises", "what it raised"),
        ("cancelled", ""),
        ("unbegun", ""),
        ("loser", ""),
    ],
)
async def test_what_is_left_behind_is_named(client: Client, url: str, namespace: str, what: str, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with working(url, namespace, Tree):
            call: Callable[[], Awaitable[str]] = lambda: client.call(Tree.forgets("a", what=what), timeout=20)  # noqa: E731
            if words:
                with pytest.raises(Failed, match=words):
                    await call()
            else:
                assert await call() == "done"
            if "raises" not in what:
                assert [entry.attempts for entry in await client.history(Tree, "a")] == [1]
        gc.collect()


@pytest.mark.parametrize("s", [0.2, 0.3])
async def test_a_sleep_ends_though_its_timer_rings_early(
    client: Client, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, s: float
) -> None:
    """Time goes on between two looks at it: what was not due at the first, and is at the second, was never looked at again."""
    told, behind = Partition.now_ms, [True]

    def now_ms(self: Partition) -> int:
        late = 3 * behind[0]
        if late:
            behind[0] = False
            asyncio.get_running_loop().call_soon(behind.__setitem__, 0, True)
        return told(self) - late

    async with working(url, namespace, Tree):
        monkeypatch.setattr(Partition, "now_ms", now_ms)
        for n in range(5):
            assert await client.call(Tree.naps(f"{n}", s=s), timeout=10)


async def test_a_step_cannot_be_called_as_a_repeat_is(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Tree):
        with pytest.raises(Failed, match='"pay#2" cannot name a step'):
            await client.call(Tree.numbers("a"), timeout=20)


async def test_a_journal_of_the_former_version_is_gone_on_with(client: Client, url: str, namespace: str) -> None:
    """It has neither numbers nor places: all branches counted their sleeps together, and a name that is refused now may be in it."""
    part = PartitionKeys(namespace, "tree", 0)
    handle = await client.send(Tree.was_begun_before("a"))
    async with Redis.from_url(url) as redis:
        for field, record in {
            "pay#2": '{"result":"paid","at":1}',
            "sleep@1": '{"at":1,"due":2}',
            "sleep@2": '{"at":1,"due":3}',
            "key": f'{{"result":"{uuid5(handle.id, 2)}","args":"{args_digest((uuid5(handle.id, 2),))}","at":4}}',
        }.items():
            await redis.hset(part.steps(handle.id), mapping={field: record, "@started": "1"})
    async with working(url, namespace, Tree):
        assert await handle.result(timeout=20) == ["paid", uuid5(handle.id, 2)]
    assert not ran


def uuid5(id: str, n: int) -> str:
    return str(uuid_of(Queued("", id, "a", "", b""), n))
