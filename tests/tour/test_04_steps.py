"""Steps: recorded before the code goes on, never run again once recorded, by themselves or side by side."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import msgspec
import pytest

from statemq import Client, Context, Fail, Failed, Machine, Retry, StepFailed, transition
from statemq.errors import StepConflict
from tests.working import working

ran: Counter[str] = Counter()
QUICK = Retry(attempts=4, first=0.005, jitter=0)


class Offer(msgspec.Struct):
    price: int
    tags: tuple[str, ...] = ()


@pytest.fixture(autouse=True)
def forget() -> None:
    ran.clear()


def note(name: str) -> int:
    ran[name] += 1
    return ran[name]


async def ask(item: str) -> Offer:
    note(f"ask {item}")
    return Offer(len(item), ("a", "b"))


def unannotated(item: str):  # type: ignore[no-untyped-def]
    return (item, item)


def whose_thread() -> str:
    note("thread")
    return threading.current_thread().name


async def fails_twice() -> str:
    if note("fails") < 3:
        raise ConnectionError("not yet")
    return "at last"


async def always_fails() -> None:
    note("always")
    raise ConnectionError("never")


async def refuses() -> None:
    note("refuses")
    raise Fail("the card is stolen")


async def hangs() -> None:
    note("hangs")
    await asyncio.sleep(3600)


def blocks_a_moment() -> None:
    time.sleep(0.3)


def runs_dry() -> Any:
    return next(iter([]))


async def never_json() -> Any:
    return object()


async def fetch(n: int, first: asyncio.Event | None = None) -> int:
    note(f"fetch {n}")
    return n


async def total(basket: list[int]) -> int:
    note(f"pay {basket}")
    return sum(basket)


class Trip(Machine[None], initial="planned", retry=QUICK, partitions=2):
    @transition(source="planned", target="booked")
    async def book(self, ctx: Context, item: str = "train") -> list[Any]:
        note("body")
        offer = await ctx.step("ask", ask, item)
        again = await ctx.step("ask", ask, item)  # a repeat of a name is a step of its own: ask#2
        pair = await ctx.step("pair", unannotated, item)
        if ctx.attempt < 3:
            raise ConnectionError("the line dropped")
        return [type(offer).__name__, offer.price, list(offer.tags), again == offer, pair]

    @transition(source="planned")
    async def thread(self, ctx: Context) -> str:
        return await ctx.step("thread", whose_thread)

    @transition(source="planned")
    async def patient(self, ctx: Context) -> str:
        return await ctx.step("fails", fails_twice, retry=QUICK)

    @transition(source="planned")
    async def catches(self, ctx: Context) -> str:
        try:
            await ctx.step("always", always_fails, retry=Retry(attempts=2, first=0.005))
        except StepFailed as failed:
            if ctx.attempt < 2:
                raise ConnectionError("once more") from None
            return f"{failed.step} {failed.type} {failed.reason}"
        return "not reached"

    @transition(source="planned")
    async def uncaught(self, ctx: Context) -> None:
        await ctx.step("always", always_fails, retry=Retry(attempts=2, first=0.005))

    @transition(source="planned")
    async def refused(self, ctx: Context) -> None:
        await ctx.step("refuses", refuses, retry=QUICK)

    @transition(source="planned")
    async def impatient(self, ctx: Context) -> str:
        try:
            await ctx.step("hangs", hangs, retry=Retry(attempts=2, first=0.005), timeout=0.02)
        except StepFailed as failed:
            return failed.type
        return "not reached"

    @transition(source="planned")
    async def impatient_thread(self, ctx: Context) -> str:
        try:
            await ctx.step("blocks", blocks_a_moment, retry=Retry(attempts=1), timeout=0.02)
        except StepFailed as failed:
            return failed.type
        return "not reached"

    @transition(source="planned", retry=Retry(attempts=1))
    async def dry(self, ctx: Context) -> None:
        await ctx.step("dry", runs_dry)

    @transition(source="planned")
    async def no_json(self, ctx: Context) -> None:
        await ctx.step("odd", never_json)

    @transition(source="planned")
    async def at_once(self, ctx: Context) -> list[int]:
        results = await asyncio.gather(*(ctx.step(f"fetch {n}", fetch, n) for n in range(5)))
        if ctx.attempt < 2:
            raise ConnectionError("after all of them")
        return list(results)

    @transition(source="planned")
    async def confused(self, ctx: Context, n: int = 0) -> list[int]:
        first = await ctx.step("fetch", fetch, ctx.attempt)  # another argument at each attempt
        raise ConnectionError(f"after {first}")

    @transition(source="planned")
    async def changes_its_mind(self, ctx: Context) -> int:
        basket = [0]
        paying = ctx.step("pay", total, basket)
        basket.append(ctx.attempt)  # what it is awaited with is what it runs with
        paid = await paying
        raise ConnectionError(f"after {paid}")


async def test_a_recorded_step_is_not_run_again_and_gives_the_same_value(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Trip):
        handle = await client.send(Trip.book("oslo"))
        assert await handle.result(timeout=20) == ["Offer", 5, ["a", "b"], True, ["train", "train"]]
        assert (await handle.outcome()).attempts == 3
    assert ran == {"body": 3, "ask train": 2}


async def test_a_blocking_function_runs_in_a_thread(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Trip):
        assert (await client.call(Trip.thread("oslo"), timeout=20)).startswith("statemq-step")


async def test_a_step_with_a_retry_policy_is_tried_again_by_itself(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Trip):
        handle = await client.send(Trip.patient("oslo"))
        assert await handle.result(timeout=20) == "at last"
        assert (await handle.outcome()).attempts == 1
    assert ran["fails"] == 3


async def test_its_last_error_is_recorded_and_raised_and_a_replay_sees_it_too(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Trip):
        assert await client.call(Trip.catches("oslo"), timeout=20) == "always ConnectionError never"
        assert ran["always"] == 2
        with pytest.raises(Failed, match="step always failed: ConnectionError: never") as failed:
            await client.call(Trip.uncaught("oslo"), timeout=20)
        assert failed.value.code == "step_failed"
        assert ran["always"] == 4  # the journal would repeat the error, so there is no second attempt


async def test_fail_ends_a_step_s_retries(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Trip):
        with pytest.raises(Failed, match="the card is stolen"):
            await client.call(Trip.refused("oslo"), timeout=20)
    assert ran["refuses"] == 1


async def test_a_timeout_bounds_each_try_and_for_a_thread_the_waiting(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Trip):
        assert await client.call(Trip.impatient("oslo"), timeout=20) == "TimeoutError"
        assert ran["hangs"] == 2
        assert await client.call(Trip.impatient_thread("oslo"), timeout=20) == "TimeoutError"


async def test_a_blocking_step_that_raises_stopiteration_fails_like_any_other(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Trip):
        with pytest.raises(Failed, match="StopIteration"):
            await client.call(Trip.dry("oslo"), timeout=20)


async def test_a_step_must_return_json(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Trip):
        with pytest.raises(Failed, match="step odd returned what JSON cannot hold"):
            await client.call(Trip.no_json("oslo"), timeout=20)


async def test_concurrent_steps_under_their_own_names(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Trip):
        assert await client.call(Trip.at_once("oslo"), timeout=20) == [0, 1, 2, 3, 4]
    assert ran == {f"fetch {n}": 1 for n in range(5)}


async def test_a_record_made_for_other_arguments_is_a_conflict(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Trip):
        with pytest.raises(Failed, match="step fetch was recorded for other arguments; give concurrent steps their own names") as failed:
            await client.call(Trip.confused("oslo"), timeout=20)
        assert failed.value.code == StepConflict.code
        assert "its arguments are not the same at each attempt: take what changes from ctx.now(), ctx.random" in failed.value.reason
        assert failed.value.reason.endswith("(the attempt before failed: ConnectionError: after 1)")
        (letter,) = await client.failed(Trip)
        assert (
            "RuntimeError: the attempt before failed: ConnectionError: after 1\n\nThe above exception was the direct cause"
            in letter.traceback
        )
    assert ran == {"fetch 1": 1}


async def test_arguments_count_as_they_are_when_the_step_is_awaited(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Trip):
        with pytest.raises(Failed, match="step pay was recorded for other arguments"):
            await client.call(Trip.changes_its_mind("oslo"), timeout=20)
    assert ran == {"pay [0, 1]": 1}
