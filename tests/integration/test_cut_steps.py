"""Steps that the body cancels, with a real worker: what an operator resumes tries them again, whatever else does not."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from statemq import Client, Context, Fail, Machine, Retry, transition
from tests.waiting import wait_until
from tests.working import working


class Data(msgspec.Struct):
    n: int = 0


class Till(Machine[Data], initial="on", partitions=1, name="till", on_failure="pause", retry=Retry(attempts=1)):
    ran = 0
    mended = False

    @transition(source="on")
    async def pay(self, ctx: Context, *, gives_up: bool = False) -> str:
        try:
            return await asyncio.wait_for(ctx.step("pay", charge), 0.2)
        except TimeoutError:
            if gives_up:
                raise Fail("the bank does not answer") from None
            raise


async def charge() -> str:
    Till.ran += 1
    await asyncio.sleep(0 if Till.mended else 3600)
    return "paid"


async def test_a_resume_tries_a_step_again_that_a_time_out_had_cancelled(url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace, machines=[Till]) as client, working(url, namespace, Till):
        for key, gives_up in (("a", False), ("b", True)):
            Till.ran, Till.mended = 0, False
            handle = await client.send(Till.pay(key, gives_up=gives_up))
            await wait_until(lambda key=key: _is_paused(client, key))
            Till.mended = True
            await client.resume(Till, key)
            assert await handle.result(timeout=60) == "paid"
            assert Till.ran == 2


async def _is_paused(client: Client, key: str) -> Any:
    return (await client.get(Till, key)).paused
