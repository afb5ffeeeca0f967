"""Attempts that raise are repeated with back-off, in their place; then, or at ``Fail``, the command has failed for good."""

from __future__ import annotations

from collections import Counter

import pytest

from statemq import Client, Context, Fail, Failed, Machine, Pending, Retry, transition
from tests.waiting import wait_until
from tests.working import working

ran: Counter[str] = Counter()
mended: set[str] = set()


@pytest.fixture(autouse=True)
def forget() -> None:
    ran.clear()
    mended.clear()


class Mail(Machine[None], initial="idle", retry=Retry(attempts=3, first=0.005, jitter=0), partitions=2):
    @transition(source="idle")
    async def send(self, ctx: Context, fails: int) -> int:
        ran[f"send {fails}"] += 1
        if ctx.attempt <= fails:
            raise OSError("the server is away")
        return ctx.attempt

    @transition(source="idle")
    def pure(self, fails: int) -> str:
        ran["pure"] += 1
        if ran["pure"] <= fails:
            raise OSError("even this")
        return "done"

    @transition(source="idle")
    async def give_up(self) -> None:
        ran["give up"] += 1
        raise Fail("no such address", code="bounced")

    @transition(source="idle", retry=Retry(attempts=2, first=0.2, jitter=0))
    async def slow(self) -> None:
        raise OSError("slow to come back")

    @transition(source="idle")
    def ping(self) -> str:
        return "pong"


class Pump(Machine[None], initial="idle", retry=Retry(attempts=2, first=0.005), on_failure="pause", partitions=2):
    @transition(source="idle")
    async def run(self, ctx: Context) -> int:
        ran["run"] += 1
        if ctx.key not in mended:
            raise OSError("the pump is blocked")
        return ctx.attempt

    @transition(source="idle")
    def ping(self) -> str:
        return "pong"


async def test_an_attempt_that_raises_is_followed_by_another(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Mail):
        handles = await client.send_many([Mail.send("a", fails=2), Mail.send("a", fails=0)])
        assert [await h.result(timeout=20) for h in handles] == [3, 1]
        outcomes = [await h.outcome() for h in handles]
        assert outcomes[0].at <= outcomes[1].at  # it keeps its place before the next of its key
        assert [o.attempts for o in outcomes] == [3, 1]
        assert await client.call(Mail.pure("a", fails=1), timeout=20) == "done"


async def test_after_the_last_attempt_it_has_failed_for_good(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Mail):
        handle = await client.send(Mail.send("a", fails=9))
        with pytest.raises(Failed, match=r"OSError: the server is away \(after 3 attempts\)") as failed:
            await handle.result(timeout=20)
        assert (failed.value.code, (await handle.outcome()).error) == ("retries", "OSError")
        assert ran["send 9"] == 3
        (letter,) = await client.failed(Mail)
        assert (letter.id, letter.key, letter.transition, letter.args, letter.attempts) == (handle.id, "a", "send", '{"fails":9}', 3)
        assert "the server is away" in letter.traceback
        assert await client.call(Mail.send("a", fails=0), timeout=20) == 1  # with on_failure="skip" the key goes on


async def test_fail_is_final_at_once(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Mail):
        with pytest.raises(Failed, match="no such address") as failed:
            await client.call(Mail.give_up("a"), timeout=20)
        assert (failed.value.code, ran["give up"]) == ("bounced", 1)


async def test_a_long_back_off_leaves_memory_and_other_keys_go_on(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Mail, suspend_after_s=0.01):
        handle = await client.send(Mail.slow("a"))
        assert await client.call(Mail.ping("b"), timeout=20) == "pong"
        with pytest.raises(Failed, match="slow to come back"):
            await handle.result(timeout=20)
        assert (await handle.outcome()).attempts == 2


async def test_on_failure_pause_keeps_the_command_until_an_operator_resumes(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Pump):
        handle = await client.send(Pump.run("a"))
        behind = await client.send(Pump.ping("a"))

        async def paused() -> bool:
            return (await client.get(Pump, "a")).paused

        await wait_until(paused)
        assert await client.failed(Pump) == []
        with pytest.raises(Pending, match="the pump is blocked"):
            await handle.result(timeout=0.01)
        assert (await handle.status()).error == "OSError: the pump is blocked (after 2 attempts)"
        assert await client.call(Pump.ping("b"), timeout=20) == "pong"
        mended.add("a")
        await client.resume(Pump, "a")
        assert await handle.result(timeout=20) == 1  # its attempts begin anew
        assert await behind.result(timeout=20) == "pong"
        assert not (await client.get(Pump, "a")).paused


async def test_dead_letters_can_be_retried_or_discarded(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Mail):
        for key in ("a", "b"):
            with pytest.raises(Failed):
                await client.call(Mail.give_up(key), timeout=20)
        with pytest.raises(Failed):
            await client.call(Mail.pure("c", fails=4), timeout=20)
        letters = {letter.key: letter for letter in await client.failed(Mail)}
        assert set(letters) == {"a", "b", "c"}
        (again,) = await client.failed_retry(Mail, [letters["c"].letter])
        assert await client.handle(again).result(timeout=20) == "done"
        assert await client.failed_discard(Mail, [letters["a"].letter]) == 1
        assert [letter.key for letter in await client.failed(Mail)] == ["b"]
        assert await client.failed_discard(Mail) == 1
        assert await client.failed(Mail) == []
