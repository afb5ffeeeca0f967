"""An idempotency key makes a command run once; a delay lets it wait for its time."""

from __future__ import annotations

import msgspec
import pytest

from statemq import Client, Machine, Pending, transition
from statemq.errors import IdempotencyConflict
from tests.working import working


class Data(msgspec.Struct):
    orders: int = 0


class Shop(Machine[Data], initial="open", partitions=2):
    @transition(source="open")
    def order(self, item: str) -> str:
        self.data.orders += 1
        return f"{item} is order {self.data.orders}"


async def test_the_same_key_again_is_the_same_command(client: Client, url: str, namespace: str) -> None:
    first = await client.send(Shop.order("s", item="tea"), idempotency_key="form-7")
    in_flight = await client.send(Shop.order("s", item="tea"), idempotency_key="form-7")
    assert in_flight.id == first.id  # it attaches and waits for the same outcome
    async with working(url, namespace, Shop):
        assert await first.result(timeout=20) == await in_flight.result(timeout=20) == "tea is order 1"
        async with Client(url, namespace=namespace) as other:
            assert await other.call(Shop.order("s", item="tea"), idempotency_key="form-7", timeout=20) == "tea is order 1"
        assert await client.call(Shop.order("s", item="tea"), idempotency_key="form-8", timeout=20) == "tea is order 2"
        assert await client.call(Shop.order("t", item="tea"), idempotency_key="form-7", timeout=20) == "tea is order 1"  # per instance


async def test_the_same_key_for_another_request_is_a_conflict(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Shop):
        handle = await client.send(Shop.order("s", item="tea"), idempotency_key="form-7")
        with pytest.raises(IdempotencyConflict) as conflict:
            await client.send(Shop.order("s", item="coffee"), idempotency_key="form-7")
        assert conflict.value.id == handle.id
        assert await handle.result(timeout=20) == "tea is order 1"


async def test_a_delayed_command_waits_for_its_time_and_holds_up_nobody(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Shop):
        later = await client.send(Shop.order("s", item="late"), delay=0.4)
        status = await later.status()
        assert (status.status, status.key, status.args) == ("delayed", "s", {"item": "late"})
        assert await client.call(Shop.order("s", item="soon"), timeout=20) == "soon is order 1"
        assert await later.result(timeout=20) == "late is order 2"
        assert (await later.outcome()).at >= status.due


async def test_who_stops_waiting_can_ask_again_by_the_id(client: Client, url: str, namespace: str) -> None:
    sent = await client.send(Shop.order("s", item="tea"))
    with pytest.raises(Pending) as waiting:
        await sent.result(timeout=0.05)
    assert isinstance(waiting.value, TimeoutError)
    async with working(url, namespace, Shop), Client(url, namespace=namespace) as other:
        handle = other.handle(waiting.value.id)
        assert await handle.result(timeout=20) == "tea is order 1"
        assert (await handle.status()).status == "completed"
