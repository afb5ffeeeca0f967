"""What the soak's nemesis can do. Each fault breaks something, says how much it hit, and mends it; nothing else is restarted by hand.

A fault is a coroutine over the ``Arena``; it returns ``Did``. All chance comes from the arena's dice.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from statemq.keys import PartitionKeys
from statemq.server import EmbeddedServer
from tests.chaos.clock import ServerClock
from tests.chaos.fleet import Fleet, Member
from tests.chaos.ledger import CODE, FORMER, Ledger
from tests.faulty import FaultyProxy

WIRE_TIMEOUT_S = 5.0
"""After so long a silence a connection counts as dead: the bound for faults that leave it open."""

CALLS = ("append", "cancel", "acquire", "release", "load", "start", "record", "park", "postpone", "wake", "commit", "xread", "hmget")
STRIKES = 6


class Arena(msgspec.Struct):
    """What there is to break. ``workers`` and ``callers``: the proxies on their ways to the server."""

    dice: random.Random
    server: EmbeddedServer
    redis: Any
    fleet: Fleet
    workers: FaultyProxy
    callers: FaultyProxy
    lease_s: float
    namespace: str
    clock: ServerClock | None = None

    def awake(self) -> Member:
        return self.dice.choice([m for m in self.fleet.running if not m.stopped])

    def proxy(self) -> FaultyProxy:
        return self.dice.choice([self.workers, self.callers])

    def partitions(self) -> list[PartitionKeys]:
        return [PartitionKeys(self.namespace, Ledger.spec.name, n) for n in range(Ledger.spec.partitions)]


class Did(msgspec.Struct):
    """``bit``: how much was hit. ``since_s``: from when on all must go on again (monotonic). ``mend``: what ends the fault once the others
    have recovered, of a process that hangs. ``replace``: so many workers are to be started afterwards, as their host would."""

    bit: int
    since_s: float
    note: str = ""
    mend: Callable[[], Awaitable[None]] | None = None
    replace: int = 0
    at_ms: int = 0
    """The server's last moment, of a fault that may lose its last writes."""
    silent: bool = False
    """Connections were left open: they are found dead only by their silence."""
    settle: bool = False
    """A worker was started, which must have its share before anything else is broken."""
    clock: bool = False
    torn: bool = False


async def kill(a: Arena) -> Did:
    """``kill -9`` of a worker."""
    return Did(1, a.fleet.kill(a.awake()), replace=1)


async def stop(a: Arena) -> Did:
    """A worker hangs (SIGSTOP) for longer than its lease, and goes on."""
    member = a.awake()
    since_s = a.fleet.stop(member)
    until_s = since_s + a.lease_s * a.dice.uniform(1.2, 2.5)

    async def mend() -> None:
        await asyncio.sleep(until_s - time.monotonic())
        a.fleet.cont(member)

    return Did(1, since_s, f"for {until_s - since_s:.1f} s", mend)


async def blink(a: Arena) -> Did:
    """A worker hangs for less than its lease."""
    member = a.awake()
    a.fleet.stop(member)
    await asyncio.sleep(a.lease_s * a.dice.uniform(0.1, 0.8))
    return Did(1, a.fleet.cont(member))


async def term(a: Arena) -> Did:
    """SIGTERM: a worker ends in good order."""
    return Did(1, a.fleet.term(a.awake()), replace=1)


async def server_kill(a: Arena) -> Did:
    """``kill -9`` of the server, and a start from its files."""
    a.server.kill()
    at_ms = time.time_ns() // 1_000_000
    down_s = a.dice.choice([0.0, 0.3, a.lease_s * 1.5])
    await asyncio.sleep(down_s)
    a.server.start()
    return Did(1, time.monotonic(), f"down for {down_s:.1f} s", at_ms=at_ms)


async def torn_file(a: Arena) -> Did:
    """``kill -9`` of the server, whose file then lacks its last bytes, as after a loss of power. It starts from the rest."""
    a.server.kill()
    at_ms = time.time_ns() // 1_000_000
    (last,) = [max(a.server.data_dir.glob("appendonlydir/*.incr.aof"), key=lambda p: int(p.name.split(".")[-3]))]
    torn = min(a.dice.randint(1, 200_000), last.stat().st_size // 2)
    with last.open("rb+") as file:
        file.truncate(last.stat().st_size - torn)
    a.server.start()
    return Did(torn, time.monotonic(), f"of {torn} bytes", at_ms=at_ms, torn=True)


async def server_hang(a: Arena) -> Did:
    """The server hangs (SIGSTOP) and goes on; all leases may look over."""
    a.server.pause()
    await asyncio.sleep(a.lease_s * a.dice.uniform(0.2, 2))
    a.server.cont()
    return Did(1, time.monotonic())


async def debug_sleep(a: Arena) -> Did:
    """DEBUG SLEEP."""
    seconds = a.lease_s * a.dice.uniform(0.3, 2)
    await asyncio.to_thread(a.redis.execute_command, "DEBUG", "SLEEP", f"{seconds:.2f}")
    return Did(1, time.monotonic(), f"{seconds:.1f} s")


async def client_pause(a: Arena) -> Did:
    """CLIENT PAUSE, of all commands or of writes."""
    mode, ms = a.dice.choice(["ALL", "WRITE"]), int(a.lease_s * 1000 * a.dice.uniform(0.3, 1.5))
    a.redis.execute_command("CLIENT", "PAUSE", ms, mode)
    await asyncio.sleep(ms / 1000)
    return Did(1, time.monotonic(), f"{mode} {ms} ms")


async def cut(a: Arena) -> Did:
    """All connections of the workers or the clients are reset."""
    proxy = a.proxy()
    bit = proxy.connections
    proxy.cut()
    return Did(bit, time.monotonic())


async def _strike(a: Arena, what: str, silent: bool = False) -> Did:
    """A few calls are struck, each a random one of those that come by within a second."""
    before = [p.struck[what] for p in (a.workers, a.callers)]
    for _ in range(STRIKES):
        getattr(a.proxy(), what)(a.dice.choice(CALLS), a.dice.randint(1, 4))
    # and some that are sure to come by
    getattr(a.callers, what)("append", a.dice.randint(1, 3))
    getattr(a.workers, what)("commit", a.dice.randint(1, 3))
    await asyncio.sleep(1.0)
    for proxy in (a.workers, a.callers):
        proxy.forget()
    bit = sum(p.struck[what] - n for p, n in zip((a.workers, a.callers), before, strict=True))
    return Did(bit, time.monotonic(), silent=silent)


async def lose_reply(a: Arena) -> Did:
    """The k-th reply of some calls is dropped: they were carried out, and nobody heard."""
    return await _strike(a, "lose_reply")


async def lose_request(a: Arena) -> Did:
    """The connection is cut in place of some requests."""
    return await _strike(a, "lose_request")


async def cut_after(a: Arena) -> Did:
    """The connection is cut right after the reply of some calls."""
    return await _strike(a, "cut_after")


async def hold_reply(a: Arena) -> Did:
    """From the k-th reply on some connections are dead, and stay open."""
    return await _strike(a, "hold_reply", silent=True)


async def black_hole(a: Arena) -> Did:
    """The workers' or the clients' connections swallow everything, and stay open; later ones are sound."""
    proxy = a.proxy()
    before = proxy.struck["black_hole"]
    proxy.black_hole = True
    await asyncio.sleep(a.lease_s * a.dice.uniform(0.3, 2))
    proxy.black_hole = False
    return Did(proxy.struck["black_hole"] - before, time.monotonic(), silent=True)


async def delay(a: Arena) -> Did:
    """Each reply takes longer."""
    for proxy in (a.workers, a.callers):
        proxy.delay_s = a.dice.choice([0.01, 0.05])
    await asyncio.sleep(2.0)
    for proxy in (a.workers, a.callers):
        proxy.delay_s = 0.0
    return Did(a.workers.connections + a.callers.connections, time.monotonic())


async def kill_connections(a: Arena) -> Did:
    """CLIENT KILL TYPE normal."""
    return Did(int(a.redis.client_kill_filter(_type="normal", skipme=True)), time.monotonic())


async def kill_subscriptions(a: Arena) -> Did:
    """CLIENT KILL TYPE pubsub: every life sign and every reply channel at once (P5)."""
    return Did(int(a.redis.client_kill_filter(_type="pubsub", skipme=True)), time.monotonic())


async def flush_scripts(a: Arena) -> Did:
    """FUNCTION FLUSH and SCRIPT FLUSH."""
    had = len(a.redis.function_list())
    a.redis.function_flush("SYNC")
    a.redis.script_flush()
    return Did(had, time.monotonic())


async def destroy_groups(a: Arena) -> Did:
    """XGROUP DESTROY of every partition's group."""
    bit = sum(int(a.redis.xgroup_destroy(p.commands, "workers")) for p in a.partitions())
    return Did(bit, time.monotonic())


async def set_back(a: Arena) -> Did:
    """Leases that count fewer calls than were made, as after a failover that lost some (P2)."""
    bit = 0
    for p in a.dice.sample(a.partitions(), 3):
        bit += int(a.redis.hset(p.lease, "call", 0) == 0)
    return Did(bit, time.monotonic())


async def roll_back(a: Arena) -> Did:
    """A worker is replaced by one of the former version of the code, which works beside the others for a while and is replaced again."""
    since_s = a.fleet.term(a.awake())

    async def mend() -> None:
        former = a.fleet.start(**{CODE: FORMER})
        await a.fleet.settled()
        await asyncio.sleep(a.dice.uniform(0.5, 4.0))
        a.fleet.term(former)
        a.fleet.start()

    return Did(1, since_s, mend=mend, settle=True)


async def set_clock(a: Arena) -> Did:
    """The server's clock is set forth or back by hours."""
    assert a.clock is not None
    hours = a.dice.choice([h for h in (-1, 0, 1) if h != a.clock.hours])
    note = f"{hours - a.clock.hours:+d} h"
    a.clock.set(hours)
    return Did(1, time.monotonic(), note, clock=True)


SEEN_AS: dict[str, tuple[str, ...]] = {
    "kill -9 worker": ("taken died",),
    "SIGSTOP worker": ("taken silent", "fenced"),
    "drop k-th reply": ("seen", "append known", "append ended", "append attached"),
    "lease set back": ("rewound",),
}
"""Of faults whose bite the scripts see: what they recognised, instead of what was hit."""

FAULTS: dict[str, Callable[[Arena], Awaitable[Did]]] = {
    "kill -9 worker": kill,
    "SIGSTOP worker": stop,
    "SIGSTOP worker, short": blink,
    "SIGTERM worker": term,
    "kill -9 server": server_kill,
    "SIGSTOP server": server_hang,
    "DEBUG SLEEP": debug_sleep,
    "CLIENT PAUSE": client_pause,
    "cut all": cut,
    "drop k-th reply": lose_reply,
    "drop k-th request": lose_request,
    "cut after reply": cut_after,
    "half-open": hold_reply,
    "black hole": black_hole,
    "delay": delay,
    "CLIENT KILL normal": kill_connections,
    "CLIENT KILL pubsub": kill_subscriptions,
    "FUNCTION FLUSH": flush_scripts,
    "XGROUP DESTROY": destroy_groups,
    "lease set back": set_back,
    "two versions": roll_back,
    "server clock": set_clock,
}
LOSSES = {"torn file": torn_file}
"""Dealt only where losses are allowed."""
