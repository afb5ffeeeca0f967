"""``timeout=`` of a transition: an attempt that takes longer is an error of its command, whatever it hangs in."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from statemq import Client, Context, Failed, Machine, Retry, events, transition
from statemq.server import EmbeddedServer
from statemq.worker import execute
from tests.waiting import wait_until
from tests.working import working

log: list[str] = []
hung: list[EmbeddedServer] = []
stuck = threading.Event()
released: list[bool] = []


class Holder:
    """What a body has in memory."""


held: list[weakref.ref[Holder]] = []


class Log(msgspec.Struct):
    n: int = 0


class Late(Machine[Log], initial="idle", retry=Retry(attempts=2, first=0.001), partitions=1):
    @transition(source="idle", timeout=0.3)
    async def spins(self) -> None:
        while True:
            log.append("turn")
            await asyncio.sleep(0.01)

    @transition(source="idle", timeout=2)
    async def hangs_once(self, ctx: Context) -> str:
        charged = await ctx.step("charge", said, "charged")
        await ctx.step("call", hang_the_first_time)
        return charged

    @transition(source="idle", timeout=0.3)
    async def swallows(self) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log.append("swallowed")
        return "as if nothing were"

    @transition(source="idle", timeout=2)
    async def naps(self, ctx: Context, seconds: float) -> int:
        await ctx.step("before", said, "before")
        await ctx.sleep(seconds)
        await ctx.step("after", said, "after")
        return ctx.attempt

    @transition(source="idle", timeout=0.4)
    async def hangs_beside_a_nap(self, ctx: Context) -> None:
        await asyncio.gather(ctx.sleep(0.6), ctx.step("hang", hang))

    @transition(source="idle", timeout=0.4)
    async def hangs_beside_a_beat(self, ctx: Context) -> None:
        async def beat() -> None:
            while True:
                await ctx.sleep(0.1)

        await asyncio.gather(beat(), ctx.step("hang", hang))

    @transition(source="idle", timeout=0.2)
    async def hangs_in_its_end(self) -> None:
        try:
            await hang()
        finally:
            await hang()

    @transition(source="idle", timeout=0.2)
    async def never_ends(self) -> None:
        while not released:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    @transition(source="idle", timeout=0.3)
    async def blocks(self, ctx: Context) -> None:
        await ctx.step("blocks", block)

    @transition(source="idle", timeout=0.5)
    async def wants_a_thread(self, ctx: Context) -> str:
        return await ctx.step("quick", quick)

    @transition(source="idle", timeout=1, retry=Retry(attempts=1))
    async def dozes(self) -> str:
        log.append("dozes")
        await asyncio.sleep(0.3)
        return "ok"

    @transition(source="idle", timeout=0.5)
    async def holds(self, ctx: Context, seconds: float, late: bool) -> None:
        held.append(weakref.ref(holder := Holder()))
        await (asyncio.sleep(seconds) if late else ctx.sleep(seconds))
        del holder

    @transition(source="idle")
    def greedy(self) -> None:
        time.sleep(1.5)

    @transition(source="idle", timeout=2)
    async def records(self, ctx: Context) -> int:
        await ctx.step("the server hangs", pause)
        await ctx.step("after", said, "after")
        return ctx.attempt

    @transition(source="idle")
    async def other(self, ctx: Context) -> int:
        await asyncio.sleep(0.6)
        return ctx.attempt

    @other.when("again", timeout=0.2)
    async def other_again(self, ctx: Context) -> int:
        await asyncio.sleep(0.6)
        return ctx.attempt

    @transition(source="idle", target="again")
    def go_again(self) -> None: ...

    @transition(source=["idle", "again"])
    def ping(self) -> str:
        self.data.n += 1
        return "pong"


async def said(what: str) -> str:
    log.append(what)
    return what


def block() -> None:
    stuck.wait(20)


def quick() -> str:
    log.append("quick")
    return "ok"


async def pause() -> None:
    hung[0].pause()
    log.append("paused")


async def hang() -> None:
    await asyncio.sleep(60)


async def hang_the_first_time() -> None:
    log.append("called")
    if log.count("called") == 1:
        await hang()


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    log.clear()
    async with Client(url, namespace=namespace, machines=[Late]) as opened:
        yield opened


@pytest.mark.quick
async def test_it_fails_after_its_attempts_and_the_next_command_runs(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Late):
        spinning, behind = await client.send(Late.spins("a")), await client.send(Late.ping("a"))
        for _ in range(3):  # meanwhile the other keys go on
            assert await client.call(Late.ping("b"), timeout=20) == "pong"
        with pytest.raises(Failed, match=r"TimeoutError: spins did not end within 300 ms \(after 2 attempts\)") as failed:
            await spinning.result(timeout=20)
        assert failed.value.code == "retries"
        assert await behind.result(timeout=20) == "pong"
        turns = log.count("turn")
        await asyncio.sleep(0.1)
        assert log.count("turn") == turns, "it runs on"
        (letter,) = await client.failed(Late)
        assert "await asyncio.sleep(0.01)" in letter.traceback, "where it was is not told"


async def test_the_next_attempt_goes_on_behind_what_was_recorded(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Late):
        assert await client.call(Late.hangs_once("a"), timeout=20) == "charged"
    assert log == ["charged", "called", "called"]
    assert [entry.attempts for entry in await client.history(Late, "a")] == [2]


async def test_a_body_that_swallows_the_end_of_its_time_is_late_all_the_same(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Late):
        with pytest.raises(Failed, match="swallows did not end within 300 ms"):
            await client.call(Late.swallows("a"), timeout=20)
    assert log == ["swallowed"] * 2


@pytest.mark.parametrize("suspend_after_s", [0.1, 10])
async def test_durable_sleep_does_not_count(client: Client, url: str, namespace: str, suspend_after_s: float) -> None:
    """Neither in memory nor out of it."""
    async with working(url, namespace, Late, suspend_after_s=suspend_after_s):
        assert await client.call(Late.naps("a", seconds=2.5), timeout=20) == 1
    assert log == ["before", "after"]


@pytest.mark.parametrize("suspend_after_s", [0.1, 10])
async def test_a_step_that_hangs_beside_a_sleep_ends(client: Client, url: str, namespace: str, suspend_after_s: float) -> None:
    async with working(url, namespace, Late, suspend_after_s=suspend_after_s):
        with pytest.raises(Failed, match="hangs_beside_a_nap did not end within 400 ms"):
            await client.call(Late.hangs_beside_a_nap("a"), timeout=20)


async def test_a_step_that_hangs_beside_ever_new_sleeps_ends(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Late):
        with pytest.raises(Failed, match=r"hangs_beside_a_beat did not end within 400 ms \(it was in step hang\)"):
            await client.call(Late.hangs_beside_a_beat("a"), timeout=20)


async def test_a_body_that_hangs_in_its_end_is_cancelled_again(
    client: Client, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "INSIST_S", 0.2)
    async with working(url, namespace, Late):
        with pytest.raises(Failed, match="hangs_in_its_end did not end within 200 ms"):
            await client.call(Late.hangs_in_its_end("a"), timeout=20)


async def test_a_body_that_swallows_every_end_is_told_of(client: Client, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "INSIST_S", 0.1)
    told: list[events.Event] = []
    events.listeners.append(told.append)
    released.clear()
    try:
        async with working(url, namespace, Late):
            handle = await client.send(Late.never_ends("a"))
            await wait_until(lambda: any("late/a never_ends does not end though it was cancelled" in str(event) for event in told))
            released.append(True)
            await handle.result(timeout=20)  # in its second attempt: the first one was late, whatever it made of that
        assert [entry.attempts for entry in await client.history(Late, "a")] == [2]
    finally:
        events.listeners.remove(told.append)


async def test_a_call_that_was_late_holds_up_no_other(client: Client, url: str, namespace: str) -> None:
    """Its thread does not count any more."""
    stuck.clear()
    async with working(url, namespace, Late, concurrency=2):
        try:
            with pytest.raises(Failed, match="it was in step blocks"):
                await client.call(Late.blocks("a"), timeout=20)
            assert await client.call(Late.wants_a_thread("b"), timeout=20) == "ok"
        finally:
            stuck.set()
    assert [entry.attempts for entry in await client.history(Late, "b")] == [1]


async def test_a_loop_that_stood_still_does_not_count(client: Client, url: str, namespace: str) -> None:
    """Somebody else's code held it; what the body waits for is there."""
    async with working(url, namespace, Late):
        handle = await client.send(Late.dozes("a"))
        await wait_until(lambda: "dozes" in log)
        await client.send(Late.greedy("b"))
        assert await handle.result(timeout=20) == "ok"


@pytest.mark.parametrize("late", [False, True])
async def test_what_a_closed_body_held_is_free(client: Client, url: str, namespace: str, late: bool) -> None:
    """Without the garbage collector, which a worker rarely runs: commands that sleep for days must not keep their memory."""
    gc.collect()
    gc.disable()
    held.clear()
    try:
        async with working(url, namespace, Late):
            handles = await client.send_many([Late.holds(f"key {n}", seconds=60 if late else 3600, late=late) for n in range(5)])
            if late:
                for handle in handles:
                    assert (await handle.outcome(timeout=20)).outcome == "failed"
            await wait_until(lambda: len(held) >= 5 and not any(ref() for ref in held))
            for handle in [] if late else handles:
                await handle.cancel()
                assert (await handle.outcome(timeout=20)).outcome == "cancelled"
    finally:
        gc.enable()


async def test_waiting_for_redis_does_not_count(tmp_path: Path, namespace: str) -> None:
    """A store that is away for longer is no fault of the body."""
    log.clear()
    with EmbeddedServer(tmp_path / "server") as server:
        hung[:] = [server]
        async with Client(server.url, namespace=namespace) as client, working(server.url, namespace, Late):
            handle = await client.send(Late.records("a"))
            await wait_until(lambda: "paused" in log)
            await asyncio.sleep(3)
            server.cont()
            assert await handle.result(timeout=20) == 1
    assert log == ["paused", "after"]


async def test_a_case_has_its_own(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Late):
        assert await client.call(Late.other("a"), timeout=20) == 1
        await client.call(Late.go_again("a"), timeout=20)
        with pytest.raises(Failed, match="other did not end within 200 ms"):
            await client.call(Late.other("a"), timeout=20)


async def test_a_cancel_that_comes_while_it_is_late_cancels(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Late):
        handle = await client.send(Late.spins("a"))
        await wait_until(lambda: "turn" in log)
        await asyncio.sleep(0.28)
        await handle.cancel()
        assert (await handle.outcome(timeout=20)).outcome in ("cancelled", "failed")
        assert await client.call(Late.ping("a"), timeout=20) == "pong"
