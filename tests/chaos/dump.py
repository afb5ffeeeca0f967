"""The last look at a namespace, when all has drained, as lines for ``statemq.testing``."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from statemq import Client
from statemq.testing.evidence import Clock, Final, Key, Line, Standing
from tests.chaos.ledger import Ledger, Link

LENGTH = {"stream": "xlen", "hash": "hlen", "zset": "zcard", "list": "llen", "set": "scard"}
WITH_USER_TEXT = ("instance", "steps", "inbox", "outcomes", "in", "once")


def pending_in(redis: Any, name: str) -> int:
    """Entries of the stream in progress; none where somebody destroyed the group, which the next start makes anew."""
    try:
        pending: int = redis.xpending(name, "workers")["pending"]
    except ResponseError as error:
        if "NOGROUP" in str(error):
            return 0
        raise
    return pending


def kind_of(name: str) -> str:
    """``ns:{ledger:3}:timers:data`` is timers:data, ``ns:{ledger:3}:instance:k1`` is instance."""
    rest = name.split("}:", 1)[1] if "}:" in name else name.split(":", 1)[1]
    first = rest.split(":", 1)[0]
    return first if first in WITH_USER_TEXT or rest.startswith("audit") else rest


def keys(redis: Any, namespace: str) -> list[Key]:
    """Every key. ``redis`` decodes replies."""
    found = []
    for name in redis.scan_iter(f"{namespace}:*", count=1000):
        kind, type = kind_of(name), redis.type(name)
        if type == "none":
            continue
        pending = pending_in(redis, name) if kind == "commands" else 0
        size = redis.memory_usage(name, samples=0) or 0
        found.append(Key(name, kind, getattr(redis, LENGTH[type])(name), size, redis.ttl(name), pending))
    return found


def clock(redis: Any) -> Clock:
    """Both clocks, by the quickest of a few round trips: half of a slow one says nothing."""
    found = []
    for _ in range(8):
        before_s = time.monotonic()
        seconds, micros = redis.time()
        after_s = time.monotonic()
        found.append((after_s - before_s, Clock((before_s + after_s) / 2, seconds * 1000 + micros // 1000)))
    return min(found, key=lambda timed: timed[0])[1]


async def finals(client: Client, names: list[str]) -> list[Line]:
    found: list[Line] = []
    for name in names:
        instance = await client.get(Ledger.spec.name, name)  # by name: as it is stored, whatever version wrote it
        last = msgspec.convert(instance.data["last"], Link) if instance.exists else Link()
        noted = instance.data["noted"] if instance.exists else 0
        found.append(Final(name, instance.version, [last.n, last.chain], {"apply_noted": noted}))
    return found


async def standing(client: Client, pids: set[int]) -> list[Standing]:
    """The living workers and what they hold."""
    held: dict[str, list[int]] = {}
    for p in await client.partitions(Ledger):
        held.setdefault(p.owner, []).append(p.number)
    return [Standing(w.id, held.get(w.id, [])) for w in await client.workers(Ledger) if w.pid in pids]
