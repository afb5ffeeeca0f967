"""Bodies that misbehave: each fails its own command, with its reason; the worker and the other keys go on."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from statemq import Client, Command, Context, Failed, Machine, Retry, transition
from tests.waiting import wait_until
from tests.working import working

log: list[str] = []
gate = asyncio.Event()


class Data(msgspec.Struct):
    value: Any = None


class Imp(Machine[Data], initial="idle", retry=Retry(attempts=2, first=0.001), partitions=1):
    @transition(source="idle")
    async def raises(self, ctx: Context, what: str) -> None:
        _raise(what)

    @transition(source="idle")
    def raises_purely(self, what: str) -> None:
        _raise(what)

    @transition(source="idle")
    async def step_raises(self, ctx: Context, what: str, timeout: float | None = None) -> None:
        async def step() -> None:
            _raise(what)

        await ctx.step("step", step, timeout=timeout)

    @transition(source="idle")
    async def thread_raises(self, ctx: Context, what: str, timeout: float | None = None) -> None:
        await ctx.step("step", lambda: _raise(what), timeout=timeout)

    @transition(source="idle")
    async def returns(self, what: str) -> Any:
        return _values()[what]

    @transition(source="idle")
    async def returns_from_a_step(self, ctx: Context, what: str) -> None:
        await ctx.step("step", lambda: _values()[what])

    @transition(source="idle")
    def keeps(self, what: str) -> None:
        self.data.value = _values()[what]

    @transition(source="idle")
    async def swallows_everything(self, ctx: Context) -> str:
        await ctx.step("begin", _begun)
        while True:
            try:
                await gate.wait()
                return "in the end"
            except BaseException:  # noqa: BLE001 - what this is about
                log.append("swallowed")

    @transition(source="idle")
    async def one_by_one(self, n: int) -> None:
        log.append(f"begin {n}")
        for _ in range(5):
            await asyncio.sleep(0)
        log.append(f"end {n}")

    @transition(source="idle")
    def blocks(self, seconds: float) -> str:
        time.sleep(seconds)
        return "at last"

    @transition(source="idle")
    def ping(self) -> str:
        return "pong"


class Custom(BaseException):
    pass


def _raise(what: str) -> None:
    if what == "recursion":
        _raise(what)
    raise {
        "BaseException": BaseException("base"),
        "custom": Custom("mine"),
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "CancelledError": asyncio.CancelledError("by myself"),
        "GeneratorExit": GeneratorExit(),
        "StopIteration": StopIteration(1),
        "StopAsyncIteration": StopAsyncIteration(),
        "TimeoutError": TimeoutError("slow"),
        "MemoryError": MemoryError(),
        "group": ExceptionGroup("both", [ValueError("a"), ValueError("b")]),
        "nameless": _Nameless(),
    }[what]


class _Nameless(Exception):
    def __str__(self) -> str:
        raise ValueError("it cannot even be printed")


ERRORS = [
    "BaseException", "custom", "SystemExit", "KeyboardInterrupt", "CancelledError", "GeneratorExit", "StopIteration",
    "StopAsyncIteration", "TimeoutError", "MemoryError", "group", "nameless", "recursion",
]  # fmt: skip


def _values() -> dict[str, Any]:
    ring: list[Any] = []
    ring.append(ring)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return {"plain": 1, "nan": [math.nan], "inf": {"x": math.inf}, "object": object(), "ring": ring, "deep": deep, "surrogate": "\ud800"}


VALUES = ["nan", "inf", "object", "ring", "deep", "surrogate"]


async def _begun() -> None:
    log.append("begun")


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    log.clear()
    async with Client(url, namespace=namespace, machines=[Imp]) as opened:
        yield opened


async def test_whatever_a_body_or_step_raises_is_its_own_failure(client: Client, url: str, namespace: str) -> None:
    commands: list[Command[None]] = []
    for what in ERRORS:
        commands += (Imp.raises("a", what=what), Imp.raises_purely("a", what=what))
        for timeout in (None, 5.0):
            commands += (Imp.step_raises("a", what=what, timeout=timeout), Imp.thread_raises("a", what=what, timeout=timeout))
    async with working(url, namespace, Imp):
        handles = await client.send_many(commands)
        for command, handle in zip(commands, handles, strict=True):
            outcome = await handle.outcome(timeout=20)
            assert outcome.outcome == "failed", command
            assert outcome.reason, command
        assert await client.call(Imp.ping("a"), timeout=20) == "pong"
        letters = await client.failed(Imp, limit=1000)
        assert len(letters) == len(commands)
        by_id = {letter.id: letter for letter in letters}
        for command, handle in zip(commands, handles, strict=True):
            word = msgspec.json.decode(command.args)["what"]
            shown = by_id[handle.id].reason + by_id[handle.id].error + by_id[handle.id].traceback
            assert {"custom": "Custom", "group": "ExceptionGroup", "nameless": "_Nameless", "recursion": "RecursionError"}.get(
                word, word
            ) in shown, (command, shown)


async def test_the_history_of_a_failure_says_where_the_instance_stands(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Imp):
        await client.call(Imp.keeps("a", what="plain"), timeout=20)
        with pytest.raises(Failed):
            await client.call(Imp.raises("a", what="custom"), timeout=20)
        _, failed = await client.history(Imp, "a")
    assert (failed.outcome, failed.source, failed.target, failed.version) == ("failed", "idle", "idle", 1)


@pytest.mark.parametrize("make", [Imp.returns, Imp.returns_from_a_step, Imp.keeps], ids=["result", "step", "data"])
async def test_what_json_cannot_hold_fails_at_once(client: Client, url: str, namespace: str, make: Callable[..., Command[Any]]) -> None:
    async with working(url, namespace, Imp):
        for what in VALUES:
            with pytest.raises(Failed) as failed:
                await client.call(make("a", what=what), timeout=20)
            assert failed.value.code in ("result", "data", "step_failed"), (what, failed.value)
            assert "JSON" in failed.value.reason or "does not fit" in failed.value.reason, (what, failed.value)
        assert not (await client.get(Imp, "a")).exists
        assert await client.call(Imp.ping("a"), timeout=20) == "pong"


async def test_a_body_that_swallows_its_cancellation_is_cancelled_when_it_ends(client: Client, url: str, namespace: str) -> None:
    global gate
    gate = asyncio.Event()
    async with working(url, namespace, Imp):
        handle = await client.send(Imp.swallows_everything("a"))
        await wait_until(lambda: "begun" in log)
        assert await handle.cancel() == "asked"
        await wait_until(lambda: "swallowed" in log)
        assert await client.call(Imp.ping("b"), timeout=20) == "pong"
        gate.set()
        assert (await handle.outcome(timeout=20)).outcome == "cancelled"
        assert await client.call(Imp.ping("a"), timeout=20) == "pong"


async def test_concurrency_one_is_strictly_one_by_one(client: Client, url: str, namespace: str) -> None:
    handles = await client.send_many([Imp.one_by_one(f"key {n}", n=n) for n in range(30)])
    async with working(url, namespace, Imp, concurrency=1):
        for handle in handles:
            await handle.result(timeout=20)
    assert len(log) == 60
    for begin, end in zip(log[::2], log[1::2], strict=True):
        assert (begin.split()[0], end.split()[0]) == ("begin", "end")
        assert begin.split()[1] == end.split()[1]


@pytest.mark.quick
async def test_concurrency_counts_running_code(client: Client, url: str, namespace: str) -> None:
    handles = await client.send_many([Imp.one_by_one(f"key {n}", n=n) for n in range(30)])
    async with working(url, namespace, Imp, concurrency=3):
        for handle in handles:
            await handle.result(timeout=20)
    running = most = 0
    for line in log:
        running += 1 if line.startswith("begin") else -1
        most = max(most, running)
    assert most == 3


async def test_a_handler_that_blocks_longer_than_the_lease_keeps_it(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Imp, lease_ms=300) as worker:
        (before,) = await client.partitions(Imp)
        handle = await client.send(Imp.blocks("a", seconds=1.0))
        assert await handle.result(timeout=20) == "at last"
        (after,) = await client.partitions(Imp)
        assert (after.owner, after.token) == (worker.id, before.token)
        assert (await handle.outcome()).attempts == 1
