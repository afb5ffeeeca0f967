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
    try:
        paid = await asyncio.wait_for(ctx.step("pay", till.pay), within_s)
    except TimeoutError:
        paid = "late"
    await ctx.sleep(3600)
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
