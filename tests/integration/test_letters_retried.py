"""A retry of a dead letter is the same work: what the outside world did for the command that failed is not done a second time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from statemq import Client, Context, Fail, Failed, Machine, transition
from statemq.store.commands import Queued, from_element, to_element
from tests.waiting import wait_until
from tests.working import working


class Bank:
    """The payment server: a charge counts once for each idempotency key."""

    def __init__(self) -> None:
        self.charged: dict[str, int] = {}
        self.asked: Counter[str] = Counter()

    def charge(self, key: str, cents: int) -> int:
        self.asked[key] += 1
        return self.charged.setdefault(key, cents)


bank = Bank()
broken = {"mail": True}
drawn: list[tuple[Any, ...]] = []


class Account(msgspec.Struct):
    paid: int = 0


def mail() -> None:
    if broken["mail"]:
        raise Fail("the mail server is away")


class Shop(Machine[Account], initial="new", partitions=2):
    @transition(source="new")
    async def pay(self, ctx: Context, cents: int) -> int:
        drawn.append((ctx.uuid(), ctx.uuid(name="refund"), ctx.random.random(), ctx.step_key("charge")))
        self.data.paid += await ctx.step("charge", bank.charge, ctx.step_key("charge"), cents)
        await ctx.step("mail", mail)
        return self.data.paid

    @transition(source="new")
    def label(self, ctx: Context) -> None:
        drawn.append((ctx.uuid(), ctx.uuid(name="refund"), ctx.random.random(), ctx.step_key("charge")))
        mail()


@pytest.fixture(autouse=True)
def _anew() -> None:
    bank.charged.clear()
    bank.asked.clear()
    broken["mail"] = True
    drawn.clear()


@pytest.mark.quick
@pytest.mark.parametrize("retries", [1, 2, 3])
async def test_a_retry_of_a_retry_charges_once(url: str, namespace: str, retries: int) -> None:
    async with working(url, namespace, Shop), Client(url, namespace=namespace, machines=[Shop]) as client:
        first = await client.send(Shop.pay("a", 500))
        with pytest.raises(Failed):
            await first.result()
        ids = {first.id}
        for last in [False] * (retries - 1) + [True]:
            broken["mail"] = not last
            [id] = await client.failed_retry("shop")
            ids.add(id)
            if last:
                assert await client.handle(id).result() == 500
            else:
                with pytest.raises(Failed):
                    await client.handle(id).result()
                assert [letter.origin for letter in await client.failed("shop")] == [first.id]
        assert bank.charged == {f"{first.id}/charge": 500}, "one charge, under the key of the command that failed first"
        assert bank.asked == {f"{first.id}/charge": retries + 1}
        assert len(ids) == retries + 1, "each retry is a command of its own"
        assert len(set(drawn)) == 1, "uuids and chance are those of the first command, too"


async def test_a_plain_transition_that_is_retried_draws_the_same(url: str, namespace: str) -> None:
    async with working(url, namespace, Shop), Client(url, namespace=namespace, machines=[Shop]) as client:
        with pytest.raises(Failed):
            await client.call(Shop.label("a"))
        broken["mail"] = False
        [id] = await client.failed_retry("shop")
        await client.handle(id).result()
        assert len(drawn) == 2
        assert len(set(drawn)) == 1


async def test_a_retry_that_waits_in_an_inbox_is_still_the_first_command_s(url: str, namespace: str) -> None:
    async with working(url, namespace, Shop), Client(url, namespace=namespace, machines=[Shop]) as client:
        first = await client.send(Shop.pay("a", 500))
        with pytest.raises(Failed):
            await first.result()
        broken["mail"] = False
        await client.pause("shop", "a")
        [id] = await client.failed_retry("shop")
        async with Redis.from_url(url) as redis:

            async def parked() -> bool:
                return bool([key async for key in redis.scan_iter(f"{namespace}:*:inbox:a")])

            await wait_until(parked)
        assert (await client.show(id)).origin == first.id
    async with working(url, namespace, Shop), Client(url, namespace=namespace, machines=[Shop]) as client:  # another worker takes it up
        await client.resume("shop", "a")
        assert await client.handle(id).result() == 500
        assert bank.charged == {f"{first.id}/charge": 500}


async def test_another_command_is_another_charge(url: str, namespace: str) -> None:
    broken["mail"] = False
    async with working(url, namespace, Shop), Client(url, namespace=namespace, machines=[Shop]) as client:
        for _ in range(2):
            await client.call(Shop.pay("a", 500))
        assert len(bank.charged) == 2


def test_an_element_keeps_the_origin_and_a_former_one_has_none() -> None:
    command = Queued("1-0", "shop.0.x", "a", "pay", b"{}", origin="shop.0.w")
    element = from_element(to_element(command))
    assert element is not None
    assert (element.origin, element.identity) == ("shop.0.w", "shop.0.w")
    former = from_element(b'1-0 shop.0.x {"key":"a","transition":"pay","args":"{}"}')
    assert former is not None
    assert (former.origin, former.identity) == ("", "shop.0.x")
