"""``timeout=`` of a transition: an attempt that takes longer is an error of its command, whatever it hangs in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from statemq import Client, Context, Failed, Machine, Retry, transition
from statemq.server import EmbeddedServer
from tests.waiting import wait_until
from tests.working import working

log: list[str] = []
hung: list[EmbeddedServer] = []


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


async def test_it_fails_after_its_attempts_and_the_next_command_runs(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Late):
        spinning, behind = await client.send(Late.spins("a")), await client.send(Late.ping("a"))
        began_s, others = time.monotonic(), 0
        while time.monotonic() - began_s < 0.2:  # meanwhile the other keys go on
            assert await client.call(Late.ping("b"), timeout=20) == "pong"
            others += 1
        assert others > 1
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
