"""What a Redis says of itself and of a machine's partitions, for ``doctor``: plain reads, and never more than the user may see.

What is refused to this user is named in ``unseen``; what a key of a wrong type hides shows up in ``damage``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import msgspec

from statemq import keys as names
from statemq.keys import PartitionKeys
from statemq.store.catalog import Known
from statemq.store.damage import find_damage
from statemq.store.inspect import fields, number, text
from statemq.store.lease import LIVE_MS, redis_now_ms
from statemq.store.router import Router
from statemq.store.wire import ReplyError, Wire

LOOK = 1000
"""Commands of a partition that are looked at one by one, for paused keys."""

KEYS = 6
"""Keys of each partition and undeclared state that are read: one more than a line names."""

USED_UP = "18446744073709551615"
"""The last ms of a stream's ids: nobody's clock got there, somebody's hand did."""


class ServerFacts(msgspec.Struct, frozen=True):
    """One node. ``info`` and ``config`` are empty where they are refused."""

    address: str
    info: dict[str, str] = {}
    config: dict[str, str] = {}
    clock_ms: int = 0
    """How far its clock is ahead of this process's, and ``round_trip_ms``: how exactly that is known."""
    round_trip_ms: int = 0
    scripts: str = ""
    """How scripts run: function, hash; or empty, when ``why`` says what is refused."""
    why: str = ""
    unseen: list[str] = []


class PartitionFacts(msgspec.Struct):
    """One partition; times in ms of Redis. Ages are 0 where there is nothing."""

    number: int
    token: str = ""
    owner: str = ""
    overdue_ms: int = 0
    """Since when the lease is over; negative: how long it lasts."""
    incarnation: str = ""
    paused: bool = False
    waiting: int = 0
    stream: int = 0
    failed: int = 0
    used_up: bool = False
    """Its command stream has no entry ids left."""
    running_ms: int = 0
    """How long the longest claimed command has been running (at least as long as was asked for), with its entry and worker."""
    entry: str = ""
    worker: str = ""
    ready_ms: int = 0
    ready_key: str = ""
    due_ms: int = 0
    """How long the earliest timer has been due."""
    paused_keys: list[str] = []
    undeclared: dict[str, tuple[int, list[str]]] = {}
    """Instances by states that are not declared any more: how many, and the first keys."""
    damage: str = ""
    unseen: list[str] = []


class MachineFacts(msgspec.Struct):
    """``workers``: each id and whether it is live."""

    known: Known
    workers: dict[str, bool] = {}
    partitions: list[PartitionFacts] = []
    damage: str = ""
    unseen: list[str] = []


async def server(router: Router, node: Wire) -> ServerFacts:
    """What this node tells."""
    before = time.time()
    clock = await _tried(node.call("TIME"))
    after = time.time()
    info, config = await asyncio.gather(
        _tried(node.call("INFO")),
        _tried(node.call("CONFIG", "GET", "appendfsync", "min-replicas-to-write", "maxmemory-policy", "aof-load-truncated")),
    )
    unseen = [name for name, answer in (("TIME", clock), ("INFO", info), ("CONFIG GET", config)) if isinstance(answer, ReplyError)]
    scripts = router.scripts_of(node)
    ahead_ms = 0
    if not isinstance(clock, ReplyError):
        ahead_ms = round(int(clock[0]) * 1000 + int(clock[1]) / 1000 - (before + after) * 500)
    return ServerFacts(
        address=str(node.address),
        info={} if isinstance(info, ReplyError) else _info(text(info)),
        config={} if isinstance(config, ReplyError) else {name: text(value) for name, value in fields(config).items()},
        clock_ms=ahead_ms,
        round_trip_ms=round((after - before) * 1000),
        scripts="" if scripts.denied else "hash" if scripts.by_hash else "function",
        why=str(scripts.denied or ""),
        unseen=unseen,
    )


def _info(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value.strip() for name, _, value in pairs if name}


async def machine(router: Router, namespace: str, known: Known, long_ms: int) -> MachineFacts:
    """The machine's registry and partitions. ``long_ms``: how long a command has to run before it is looked for."""
    now = await redis_now_ms(router)
    facts = MachineFacts(known)
    workers_key = names.workers(namespace, known.name)
    seen = await _tried(router.call(workers_key, "ZRANGE", workers_key, 0, -1, "WITHSCORES"))
    if isinstance(seen, ReplyError):
        if seen.word == "NOPERM":
            facts.unseen.append(f"{workers_key} (ZRANGE)")
        else:
            facts.damage = f"{workers_key} is no sorted set"
    else:
        facts.workers = {text(seen[i]): number(seen[i + 1]) > now - LIVE_MS for i in range(0, len(seen), 2)}
    facts.partitions = list(await asyncio.gather(*(_partition(router, part, known, now, long_ms) for part in known.partitions)))
    return facts


async def _partition(router: Router, part: PartitionKeys, known: Known, now: int, long_ms: int) -> PartitionFacts:
    facts = PartitionFacts(part.number)

    async def ask(command: str, key: str, *args: str | int) -> Any:
        """The reply, or None: refused (then it is named) or of a wrong type (then ``damage`` will name it)."""
        answer = await _tried(router.call(part.lease, *command.split(), key, *args))
        if not isinstance(answer, ReplyError):
            return answer
        if answer.word == "NOPERM" or "unknown" in answer.message:
            facts.unseen.append(command)
        return None

    lease, waiting, stream, failed, ready, timer, running, accepted, info = await asyncio.gather(
        ask("HMGET", part.lease, "token", "owner", "deadline", "incarnation", "paused"),
        ask("HLEN", part.accepted),
        ask("XLEN", part.commands),
        ask("XLEN", part.failed),
        ask("ZRANGE", part.ready, 0, 0, "WITHSCORES"),
        ask("ZRANGE", part.timers, 0, 0, "WITHSCORES"),
        ask("XPENDING", part.commands, "workers", "IDLE", long_ms, "-", "+", 1),
        ask("HSCAN", part.accepted, 0, "COUNT", LOOK),
        ask("XINFO STREAM", part.commands),
    )
    token, owner, deadline, incarnation, paused = lease or [None] * 5
    facts.token, facts.owner, facts.incarnation = text(token), text(owner), text(incarnation)
    facts.overdue_ms = now - number(deadline) if facts.token else 0
    facts.paused = paused == b"1"
    facts.waiting, facts.stream, facts.failed = waiting or 0, stream or 0, failed or 0
    if ready:
        facts.ready_key, facts.ready_ms = text(ready[0]), max(0, now - number(ready[1]))
    if timer:
        facts.due_ms = max(0, now - number(timer[1]))
    if running:
        facts.entry, facts.worker, facts.running_ms = text(running[0][0]), text(running[0][1]), running[0][2]
    ms, _, count = text(fields(info).get("last-generated-id") if info else None).partition("-")
    facts.used_up = ms == USED_UP and len(count) >= 19
    facts.paused_keys = await _paused(ask, part, accepted)
    for state in (state for state in known.all_states if not known.is_declared(state)):
        index = part.in_state(state)
        if count := await ask("ZCARD", index):
            first = await ask("ZRANGE", index, 0, KEYS - 1)
            facts.undeclared[state] = count, [text(key) for key in first or ()]
    try:
        facts.damage = await find_damage(router, part, tuple(known.all_states), now)
    except ReplyError:
        facts.unseen.append("TYPE")
    return facts


async def _paused(ask: Any, part: PartitionKeys, accepted: Any) -> list[str]:
    """The paused keys among those for which something waits in an inbox: a bounded look."""
    if not accepted:
        return []
    places = [text(place) for place in accepted[1][1::2]]
    waiting = sorted({place.partition(" ")[2] for place in places if place.startswith("@")})
    rows = await asyncio.gather(*(ask("HMGET", part.instance(key), "paused") for key in waiting))
    return [key for key, row in zip(waiting, rows, strict=True) if row and row[0] is not None]


async def _tried(asked: Awaitable[Any]) -> Any:
    """The reply, or the error as a value."""
    try:
        return await asked
    except ReplyError as error:
        return error
