"""Every wait of a client ends when it was to end, with what is known by then; and no pause delays who leaves."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from statemq import Client, Context, Machine, Pending, Retry, transition
from statemq import sync as blocking
from statemq.errors import RedisAway, ServerError, Unknown
from statemq.store.router import Router
from statemq.worker import daemon
from tests.fake_worker import FakeWorker
from tests.faulty import FaultyProxy
from tests.integration.door import Door
from tests.waiting import block_until, wait_until
from tests.working import working

LIMIT_S = 30
"""Far more than any of these needs, and far less than what would hold it up."""


@pytest.mark.quick
async def test_who_does_not_wait_is_told_of_what_has_ended(client: Client, fake: FakeWorker, url: str, namespace: str) -> None:
    handle = await client.send(Door.open("a"))
    with pytest.raises(Pending):
        await handle.result(timeout=0)
    await fake.complete("a", "a is open")
    async with Client(url, namespace=namespace, machines=[Door]) as other:
        assert await other.handle(handle.id).result(timeout=0) == "a is open"
        assert (await other.handle(handle.id).outcome(timeout=0)).outcome == "completed"
        with pytest.raises(Unknown):
            await other.handle("door.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12").result(timeout=0)
    assert await handle.result(timeout=0) == "a is open"
    blocks = blocking_client(url, namespace)
    assert await asyncio.to_thread(lambda: blocks.handle(handle.id).result(timeout=0)) == "a is open"
    await asyncio.to_thread(blocks.close)


@pytest.mark.parametrize("how", ["class", "name", "arguments"])
async def test_a_call_that_needs_the_machine_first_has_a_time_out(proxy: FaultyProxy, client: Client, namespace: str, how: str) -> None:
    async with Client(proxy.url, namespace=namespace) as other:
        if how == "arguments":
            await other.get("door", "a")
        proxy.black_hole = True
        call = {
            "class": lambda: other.call(Door.open("a"), timeout=0.2),
            "name": lambda: other.call("door", "a", "open", timeout=0.2),
            "arguments": lambda: other.call("door", "a", "unheard_of", timeout=0.2),  # the config is read once more
        }[how]
        with pytest.raises(RedisAway, match="the command was not sent"):
            await asyncio.wait_for(call(), LIMIT_S)


@pytest.mark.parametrize("what", ["garbage", '{"id":5}', '["list"]', b"\xff"])
async def test_a_damaged_outcome_is_told_to_its_own_waiter_and_holds_up_no_other(
    client: Client, fake: FakeWorker, redis: Redis, url: str, namespace: str, what: str | bytes
) -> None:
    part = await fake.part("a")
    good, bad = await client.send_many([Door.open("a"), Door.open("a")])
    async with Client(url, namespace=namespace, machines=[Door]) as other:
        await fake.complete("a", "a is open")
        await fake.complete("a", "a is open")
        (period,) = await redis.keys(f"{part.outcomes_}*".replace("{", r"\{"))
        await redis.hset(period, bad.id, what)
        told = await asyncio.gather(*(other.handle(h.id).result(timeout=LIMIT_S) for h in (bad, good)), return_exceptions=True)
        assert told[1] == "a is open"
        assert isinstance(told[0], ServerError)
        assert f"the outcome of command {bad.id} in" in str(told[0])
        assert "was damaged by hand" in str(told[0])


async def test_a_damaged_period_of_outcomes_hides_no_other(
    client: Client, fake: FakeWorker, redis: Redis, url: str, namespace: str
) -> None:
    part = await fake.part("a")
    ended, waits = await client.send_many([Door.open("a"), Door.open("a")])
    await fake.complete("a", "a is open")
    (raw,) = await redis.keys(f"{part.outcomes_}*".replace("{", r"\{"))
    period = int(raw.decode().rpartition(":")[2])
    others = [part.outcomes(other) for other in (period + 1, period + 2, period - 1)]
    for other in others:
        await redis.set(other, "by hand", ex=60)
    async with Client(url, namespace=namespace, machines=[Door]) as asking:
        assert await asking.handle(ended.id).result(timeout=LIMIT_S) == "a is open"
        with pytest.raises(Pending):
            await asking.handle(waits.id).result(timeout=0.2)
    await redis.delete(*others)  # one of them may have begun
    await fake.complete("a", "a is open")


@pytest.fixture
def redis(url: str) -> Any:
    return Redis.from_url(url)


# -- the blocking client ---------------------------------------------------------------------------


def blocking_client(url: str, namespace: str, **how: Any) -> blocking.Client:
    return blocking.Client(url, namespace=namespace, machines=[Door], **how)


CALLS: dict[str, Callable[[blocking.Client], Any]] = {
    "get": lambda c: c.get(Door, "a"),
    "send": lambda c: c.send(Door.open("a")),
    "send_many": lambda c: c.send_many([Door.open("a")]),
    "call": lambda c: c.call(Door.open("a"), timeout=0.2),
    "list": lambda c: c.list(Door),
    "history": lambda c: c.history(Door),
    "pause": lambda c: c.pause(Door),
    "result": lambda c: c.handle("door.1.x").result(timeout=0.2),
    "status": lambda c: c.handle("door.1.x").status(),
    "connect": lambda c: c.connect(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_blocking_call_ends_though_the_server_never_answers(call: Callable[[blocking.Client], Any], namespace: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = blocking_client(f"redis://127.0.0.1:{silent.getsockname()[1]}", namespace, timeout=0.3)
        with pytest.raises(RedisAway):
            call(client)
        client.close()


@pytest.mark.parametrize("call", [call for name, call in CALLS.items() if name != "connect"], ids=[n for n in CALLS if n != "connect"])
async def test_a_blocking_call_ends_though_the_server_hangs(
    call: Callable[[blocking.Client], Any], client: Client, proxy: FaultyProxy, namespace: str
) -> None:
    other = blocking_client(proxy.url, namespace, timeout=0.3)
    await asyncio.to_thread(other.connect)
    proxy.black_hole = True
    with pytest.raises((RedisAway, Pending)):
        await asyncio.wait_for(asyncio.to_thread(call, other), LIMIT_S)
    await asyncio.to_thread(other.close)


PROGRAM = """
import asyncio, atexit, sys, threading, time
import statemq, statemq.sync
from statemq import Machine, transition

class Lamp(Machine[None], initial="off", partitions=1):
    @transition(source="off")
    def touch(self) -> None: ...

URL, NAMESPACE = sys.argv[1:]
client = statemq.sync.Client(URL, namespace=NAMESPACE, machines=[Lamp])
"""

ENDS = {
    "never closed": "client.send(Lamp.touch('a'))",
    "closed by atexit": "client.send(Lamp.touch('a')); atexit.register(client.close)",
    "first used by atexit": "atexit.register(lambda: client.send(Lamp.touch('a')))",
    "asked while the interpreter ends": """
        class Keeper:
            def __init__(self):
                self.client = client
                self.client.send(Lamp.touch('a'))
            def __del__(self):
                try:
                    self.client.get('lamp', 'a')
                except Exception:
                    pass
                self.client.close()
        sys.keeper = Keeper()
    """,
    "daemon threads wait": """
        for _ in range(4):
            threading.Thread(target=lambda: client.call(Lamp.touch('a')), daemon=True).start()
        while not client.queue(Lamp): pass
    """,
    "a thread outlives main": """
        def ask():
            threading.main_thread().join()
            client.send(Lamp.touch('a'))
        threading.Thread(target=ask).start()
    """,
    "an event loop is left behind": """
        async def main():
            global other
            other = await statemq.Client(URL, namespace=NAMESPACE, machines=[Lamp]).connect()
            await other.send(Lamp.touch('a'))
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
    """,
}


@pytest.mark.leaves_work
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_program_ends_without_having_closed_its_client(end: str, url: str, namespace: str) -> None:
    program = PROGRAM + textwrap.dedent(end)
    ended = subprocess.run([sys.executable, "-c", program, url, namespace], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.leaves_work
def test_an_interrupt_ends_a_blocking_wait(url: str, namespace: str) -> None:
    wait = "\ntry:\n    client.call(Lamp.touch('a'))\nexcept KeyboardInterrupt:\n    client.close()\n    print('interrupted')\n"
    with subprocess.Popen([sys.executable, "-c", PROGRAM + wait, url, namespace], stdout=subprocess.PIPE, text=True) as program:
        watcher = blocking.Client(url, namespace=namespace)

        def queued() -> bool:
            try:
                return bool(watcher.queue("lamp"))
            except Exception:  # noqa: BLE001 - it is not declared yet
                return False

        block_until(queued, timeout_s=60)
        watcher.close()
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=60)
    assert (program.returncode, said) == (0, "interrupted\n")


# -- pauses and who leaves -------------------------------------------------------------------------


tried: list[str] = []


async def never(key: str) -> None:
    tried.append(key)
    raise OSError("no")


class Slow(Machine[None], initial="on", partitions=1, retry=Retry(attempts=5, first=300, jitter=0)):
    @transition(source="on")
    async def step(self, ctx: Context) -> None:
        await ctx.step("never", never, ctx.key, retry=Retry(attempts=5, first=300, jitter=0))

    @transition(source="on")
    async def attempt(self, ctx: Context) -> None:
        await never(ctx.key)


@pytest.mark.leaves_work
@pytest.mark.parametrize("what", ["step", "attempt"])
async def test_a_pause_before_the_next_try_does_not_keep_a_worker_that_leaves(
    url: str, namespace: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "BODIES_S", 600.0)
    tried.clear()
    async with Client(url, namespace=namespace, machines=[Slow]) as client:
        async with working(url, namespace, Slow, grace_s=600, suspend_after_s=1000) as worker:
            handle = await client.send("slow", what, what)
            (partition,) = worker.partitions.values()
            await wait_until(lambda: tried == [what])
            await wait_until(lambda: _pauses(partition))
            worker.stop()
            await asyncio.wait_for(_left(worker), LIMIT_S)
        assert (await client.partitions(Slow))[0].owner == "", "it was handed over"
        assert (await handle.status()).status in ("waiting", "queued", "running")


def _pauses(partition: Any) -> bool:
    return any(lane.backing_off or (lane.attempt is not None and lane.attempt.pausing) for lane in partition.lanes.values())


async def _left(worker: daemon.Worker) -> None:
    await wait_until(lambda: not worker.partitions, timeout_s=LIMIT_S)


async def test_a_connection_that_waits_before_its_next_try_can_be_hurried(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statemq.store.wire.BACKOFF_FIRST_S", 600.0)
    monkeypatch.setattr("statemq.store.wire.BACKOFF_CAP_S", 600.0)
    router = await Router(proxy.url).open()
    try:
        proxy.refuse = True
        proxy.cut()
        await wait_until(lambda: router.home.trouble)
        proxy.refuse = False

        def up() -> bool:
            router.hurry()
            return router.home.up

        await wait_until(up, timeout_s=LIMIT_S)
    finally:
        await router.close()
