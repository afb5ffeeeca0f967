"""Attempts that raise are repeated with back-off, in their place; then, or at ``Fail``, the command has failed for good."""

from __future__ import annotations

from collections import Counter

import pytest

from statemq import Client, Context, Fail, Failed, Machine, Pending, Retry, StepFailed, transition
from tests.waiting import wait_until
from tests.working import working

ran: Counter[str] = Counter()
mended: set[str] = set()


@pytest.fixture(autouse=True)
def forget() -> None:
    ran.clear()
    mended.clear()


def fill(key: str) -> None:
    ran[f"fill {key}"] += 1


def turn(key: str, fail: bool) -> str:
    ran[f"turn {key}"] += 1
    if key in mended:
        return "primed"
    raise Fail("no water", code="dry") if fail else OSError("no water")


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
    async def by_step(self, ctx: Context, fail: bool) -> str:
        return await ctx.step("turn", turn, ctx.key, fail, retry=Retry(attempts=2, first=0.005))

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
    async def prime(self, ctx: Context, how: str) -> str:
        await ctx.step("fill", fill, ctx.key)
        try:
            return await ctx.step("turn", turn, ctx.key, how == "Fail", retry=Retry(attempts=2, first=0.005))
        except StepFailed as error:
            if how == "translated":
                raise Fail("it cannot be primed", code="dry") from error
            if how == "retried":
                raise OSError("not primed") from None
            raise

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
        goes_on = "pump/a is paused: it waits until that is resumed; its last attempt failed: .* the pump is blocked"
        with pytest.raises(Pending, match=goes_on):
            await handle.result(timeout=0.01)
        assert (await handle.status()).paused == "pump/a"
        assert (await handle.status()).error == "OSError: the pump is blocked (after 2 attempts)"
        assert await client.call(Pump.ping("b"), timeout=20) == "pong"
        mended.add("a")
        await client.resume(Pump, "a")
        assert await handle.result(timeout=20) == 1  # its attempts begin anew
        assert await behind.result(timeout=20) == "pong"
        assert not (await client.get(Pump, "a")).paused


@pytest.mark.parametrize(("fail", "code", "said"), [(True, "dry", "no water"), (False, "step_failed", "OSError: no water")])
async def test_a_step_that_failed_says_where_and_by_which_code(
    client: Client, url: str, namespace: str, fail: bool, code: str, said: str
) -> None:
    async with working(url, namespace, Mail):
        with pytest.raises(Failed, match=f"step turn failed: {said}") as failed:
            await client.call(Mail.by_step("a", fail=fail), timeout=20)
        assert failed.value.code == code
        (letter,) = await client.failed(Mail)
        assert "in turn" in letter.traceback  # the user's own frame, not only the engine's


@pytest.mark.parametrize(("how", "turns", "said"), [
    ("retry", 2, "step turn failed: OSError: no water"), ("Fail", 1, "step turn failed: no water"),
    ("translated", 2, "it cannot be primed"), ("retried", 2, "not primed"),
])  # fmt: skip
async def test_a_resumed_command_runs_the_step_again_that_failed_it_and_no_other(
    client: Client, url: str, namespace: str, how: str, turns: int, said: str
) -> None:
    """Also where the body made another error of the step's."""
    async with working(url, namespace, Pump):
        handle = await client.send(Pump.prime(how, how=how))

        async def paused() -> bool:
            return (await client.get(Pump, how)).paused

        await wait_until(paused)
        assert said in (await handle.status()).error
        steps = (await handle.status()).steps
        assert [step.name for step in steps] == ["fill", "turn"]
        assert steps[1].error == ("no water" if how == "Fail" else "OSError: no water")
        mended.add(how)
        await client.resume(Pump, how)
        assert await handle.result(timeout=20) == "primed"
        assert (ran[f"fill {how}"], ran[f"turn {how}"]) == (1, turns + 1)


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
