"""A step that a plain time-out cancels: attempts that go on do not run it again, attempts after a failure do."""

from __future__ import annotations

import asyncio
from typing import Any

from statemq.context import Context
from tests.unit.bodies import Store, attempt, play


class Till:
    def __init__(self) -> None:
        self.ran = 0

    async def pay(self) -> str:
        self.ran += 1
        await asyncio.sleep(60)
        return "paid"


async def paying(ctx: Context, till: Till, within_s: float | None) -> Any:
    """Its last record is made before the step is cancelled."""
    nap = asyncio.ensure_future(ctx.sleep(3600))
    try:
        paid = await asyncio.wait_for(ctx.step("pay", till.pay), within_s)
    except TimeoutError:
        paid = "late"
    await nap
    return paid


def test_an_attempt_that_goes_on_does_not_run_it_again() -> None:
    async def run() -> Any:
        till, store = Till(), Store()
        for _ in range(3):
            how, _ = await attempt(store, lambda ctx: paying(ctx, till, 2), suspend_after_s=0.01)
            assert how == "suspend"
        return till.ran

    assert play(run) == 1


def test_an_attempt_after_a_failure_tries_it_again() -> None:
    async def body(ctx: Context, till: Till) -> None:
        await asyncio.wait_for(ctx.step("pay", till.pay), 2)

    async def run() -> Any:
        till, store, ran = Till(), Store(), []
        for failed in (0, 0, 1, 1, 2):
            how, what = await attempt(store, lambda ctx: body(ctx, till), failed=failed)
            assert (how, type(what)) == ("raised", TimeoutError)
            ran.append(till.ran)
        return ran

    assert play(run) == [1, 1, 2, 2, 3]


def test_new_code_that_does_not_cancel_it_has_its_result_and_keeps_it() -> None:
    async def run() -> Any:
        till, store = Till(), Store()
        await attempt(store, lambda ctx: paying(ctx, till, 2), suspend_after_s=0.01)
        for _ in range(2):
            how, _ = await attempt(store, lambda ctx: paying(ctx, till, None), suspend_after_s=0.01)
            assert how == "suspend"
        await asyncio.sleep(3600)
        return till.ran, await attempt(store, lambda ctx: paying(ctx, till, None), suspend_after_s=0.01)

    assert play(run) == (2, ("returned", "paid"))


def test_a_death_while_it_stands_still_changes_nothing() -> None:
    async def run() -> Any:
        till, store = Till(), Store()
        await attempt(store, lambda ctx: paying(ctx, till, 2), suspend_after_s=0.01)
        assert (await attempt(store, lambda ctx: paying(ctx, till, 2), die_at_s=1.0, suspend_after_s=0.01))[0] == "died"
        assert (await attempt(store, lambda ctx: paying(ctx, till, 2), suspend_after_s=0.01))[0] == "suspend"
        return till.ran

    assert play(run) == 1


def test_a_step_cancelled_before_its_function_ran_is_not_noted() -> None:
    async def body(ctx: Context, till: Till) -> None:
        task = asyncio.ensure_future(ctx.step("pay", till.pay))
        task.cancel()
        await asyncio.wait([task])
        await ctx.sleep(3600)

    async def run() -> Any:
        till, store = Till(), Store()
        await attempt(store, lambda ctx: body(ctx, till), suspend_after_s=0.01)
        return till.ran, [field for field in store.fields if field.startswith("@cut")]

    assert play(run) == (0, [])


async def reserving(ctx: Context, till: Till) -> Any:
    """One time-out over two steps, of which the first takes most of it."""

    async def long() -> None:
        await asyncio.sleep(40)

    try:
        async with asyncio.timeout(50):
            await ctx.step("reserve", long)
            await ctx.step("pay", till.pay)
    except TimeoutError:
        await asyncio.sleep(5)
        return "late"
    return "paid"


def test_a_time_out_over_several_steps_rings_later_when_they_are_recorded() -> None:
    async def run() -> Any:
        till, store = Till(), Store()
        assert (await attempt(store, lambda ctx: reserving(ctx, till), die_at_s=52))[0] == "died"
        assert "@cut pay" in store.fields
        ended = await attempt(store, lambda ctx: reserving(ctx, till))
        return till.ran, ended

    assert play(run) == (1, ("returned", "late"))


def test_what_was_recorded_after_it_was_cancelled_stands() -> None:
    """By a worker of a former version, which knows no such notes; or by a later attempt, whose failures an operator has forgiven."""

    async def body(ctx: Context, till: Till, within_s: float) -> Any:
        await asyncio.wait_for(ctx.step("pay", till.pay), within_s)
        await ctx.sleep(3600)
        return "paid"

    async def run() -> Any:
        till, store = Till(), Store()
        assert (await attempt(store, lambda ctx: body(ctx, till, 2)))[0] == "raised"
        note = store.fields.pop("@cut pay")
        assert (await attempt(store, lambda ctx: body(ctx, till, 100), suspend_after_s=0.01))[0] == "suspend"
        store.fields["@cut pay"] = note
        await asyncio.sleep(3600)
        return till.ran, await attempt(store, lambda ctx: body(ctx, till, 2))

    assert play(run) == (2, ("returned", "paid"))


def test_a_note_that_somebody_wrote_by_hand_is_none() -> None:
    async def run() -> Any:
        till, notes = Till(), (b"", b"x", b"0 1", b"0 x 1", b"\xff", b"0 1 2 3")
        for note in notes:
            store = Store()
            store.fields["@cut pay"] = note
            how, _ = await attempt(store, lambda ctx: paying(ctx, till, 100), suspend_after_s=0.01)
            assert how == "suspend"
            assert "pay" in store.fields
        return till.ran == len(notes)

    assert play(run)


def test_what_lost_a_recorded_race_does_not_begin_again_though_the_death_came_before_the_note() -> None:
    async def run() -> Any:
        ran: list[str] = []

        async def work(name: str, s: float) -> str:
            ran.append(name)
            await asyncio.sleep(s)
            return name

        async def body(ctx: Context) -> Any:
            tasks = [asyncio.ensure_future(ctx.step(name, work, name, s)) for name, s in (("slow", 2.0), ("fast", 1.0))]
            done, late = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in late:
                task.cancel()
            await asyncio.sleep(1)
            return [task.result() for task in done]

        store = Store(latency_s=0.003)
        assert (await attempt(store, body, die_at_s=1.005))[0] == "died"
        assert "fast" in store.fields and not any(field.startswith("@cut") for field in store.fields)
        assert await attempt(store, body) == ("returned", ["fast"])
        return sorted(ran)

    assert play(run) == ["fast", "slow"]
