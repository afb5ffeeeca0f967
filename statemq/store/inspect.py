"""See: instances, partitions, workers. Plain reads, pipelined; nothing here changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from statemq import keys as names
from statemq.codec import decode
from statemq.keys import PartitionKeys
from statemq.records import Instance, MachineInfo, PartitionInfo, WorkerInfo
from statemq.store.catalog import Known
from statemq.store.lease import LIVE_MS, redis_now_ms, survey
from statemq.store.router import Router
from statemq.store.wire import ReplyError

PAGE = 1000
"""Entries of one stream read at a time."""


def text(value: bytes | None) -> str:
    """Whatever lies in Redis, shown; what is not UTF-8 by replacement marks."""
    return "" if value is None else value.decode(errors="replace")


def fields(flat: list[bytes]) -> dict[str, bytes]:
    """A stream entry's or a hash's fields."""
    return {text(flat[i]): flat[i + 1] for i in range(0, len(flat), 2)}


def number(value: bytes | None) -> int:
    """0 for what is none: people may write by hand."""
    try:
        return int(float(value or 0))
    except (ValueError, OverflowError):
        return 0


def plain(raw: bytes | None) -> Any:
    """The JSON, or the text itself where it is none."""
    try:
        return decode(raw) if raw else None
    except ValueError:
        return text(raw)


async def get(router: Router, known: Known, key: str, read: Callable[[bytes | None], Any] = plain) -> Instance[Any]:
    """The instance as last committed, its data as ``read`` has it. An untouched one is in the initial state, version 0."""
    part = known.partition(key)
    for _ in range(5):
        row = await router.call(part.lease, "HMGET", part.instance(key), "state", "version", "data", "entered", "updated", "paused")
        state, version, data, visit, updated, paused = row
        since = await router.call(part.lease, "ZSCORE", part.in_state(text(state)), key) if state is not None else None
        if state is None or since is not None:
            break  # else it has gone to another state between the two looks, or somebody took it out of the index
    if state is None and known.spec is not None:
        data = known.spec.new_data()
    return Instance(
        machine=known.name,
        key=key,
        state=text(state) if state is not None else known.initial,
        version=number(version),
        data=read(data),
        exists=state is not None,
        paused=paused is not None,
        entered=number(since),
        updated=number(updated),
        visit=number(visit),
    )


async def get_raw(router: Router, known: Known, key: str) -> tuple[str, int, bytes | None]:
    """State, version and data as they are stored, or the initial ones."""
    part = known.partition(key)
    state, version, data = await router.call(part.lease, "HMGET", part.instance(key), "state", "version", "data")
    return (text(state), number(version), data) if state is not None else (known.initial, 0, None)


FOR_OTHER_VERSION = b"@version "
"""So begins what is stored of a pause that ends when a worker's code can read the instance; the rest says why."""


async def paused_by(router: Router, part: PartitionKeys, key: str) -> str:
    """What is paused, so that nothing of the instance begins: ``machine/key``, ``machine``, or nothing."""
    return (await paused_why(router, part, key))[0]


async def paused_why(router: Router, part: PartitionKeys, key: str) -> tuple[str, str]:
    """The same; and why no worker reads the instance, if it is paused for that."""
    instance, machine = await asyncio.gather(
        router.call(part.lease, "HGET", part.instance(key), "paused"), router.call(part.lease, "HGET", part.lease, "paused")
    )
    return _paused(part, key, instance, machine), _unread(instance)


def _unread(instance: bytes | None) -> str:
    return text(instance.removeprefix(FOR_OTHER_VERSION)) if instance and instance.startswith(FOR_OTHER_VERSION) else ""


def _paused(part: PartitionKeys, key: str, instance: bytes | None, machine: bytes | None) -> str:
    if instance is not None and key:
        return f"{part.machine}/{key}"
    return part.machine if machine == b"1" else ""


async def partitions(router: Router, known: Known) -> list[PartitionInfo]:
    held, now, sizes = await asyncio.gather(
        survey(router, known.partitions), redis_now_ms(router), asyncio.gather(*(_sizes(router, part) for part in known.partitions))
    )
    return [
        PartitionInfo(
            number=part.number,
            owner=lease.owner if lease.token else "",
            token=lease.token,
            lease_left_ms=lease.deadline_ms - now if lease.token else 0,
            waiting=waiting,
            stream=stream,
            running=running,
            ready=ready,
            timers=timers,
            paused=lease.paused,
        )
        for part, lease, (waiting, stream, ready, timers, running) in zip(known.partitions, held, sizes, strict=True)
    ]


async def _sizes(router: Router, part: PartitionKeys) -> tuple[int, ...]:
    waiting, stream, ready, timers, running = await asyncio.gather(
        router.call(part.lease, "HLEN", part.accepted),
        router.call(part.lease, "XLEN", part.commands),
        router.call(part.lease, "ZCARD", part.ready),
        router.call(part.lease, "ZCARD", part.timers),
        in_progress(router, part, 10_000),
    )
    return waiting, stream, ready, timers, len(running)


async def in_progress(router: Router, part: PartitionKeys, limit: int, entry: str | None = None) -> dict[str, str]:
    """Stream entry → the worker that runs it; of one entry or of all."""
    try:
        rows = await router.call(part.lease, "XPENDING", part.commands, "workers", entry or "-", entry or "+", limit)
    except ReplyError as error:
        if error.word == "NOGROUP":
            return {}
        raise
    return {text(entry): text(worker) for entry, worker, *_ in rows}


async def workers(router: Router, namespace: str, machines: list[Known]) -> list[WorkerInfo]:
    """The workers of these machines; ``partitions`` when one machine is asked."""
    now = await redis_now_ms(router)
    found: dict[str, WorkerInfo] = {}
    owned: dict[str, list[int]] = {}
    if len(machines) == 1:
        for part, lease in zip(machines[0].partitions, await survey(router, machines[0].partitions), strict=True):
            if lease.token:
                owned.setdefault(lease.owner, []).append(part.number)
    for known in machines:
        seen_key, about_key = names.workers(namespace, known.name), names.workers_about(namespace, known.name)
        seen, about = await asyncio.gather(
            router.call(seen_key, "ZRANGE", seen_key, 0, -1, "WITHSCORES"), router.call(about_key, "HGETALL", about_key)
        )
        said = fields(about)
        for i in range(0, len(seen), 2):
            id = text(seen[i])
            info = _worker(id, number(seen[i + 1]), plain(said.get(id)), now, owned.get(id, []))
            if id not in found or found[id].seen < info.seen:
                found[id] = info
    return sorted(found.values(), key=lambda w: (not w.live, w.started, w.id))


def _worker(id: str, seen: int, about: Any, now: int, owned: list[int]) -> WorkerInfo:
    said = about if isinstance(about, dict) else {}
    ints = {name: value for name in ("pid", "started", "concurrency") if isinstance(value := said.get(name), int)}
    return WorkerInfo(id=id, host=str(said.get("host", "")), seen=seen, live=seen > now - LIVE_MS, partitions=owned, **ints)


async def live_workers(router: Router, namespace: str, machine: str) -> int:
    """How many workers of the machine gave a sign of life lately."""
    key = names.workers(namespace, machine)
    return int(await router.call(key, "ZCOUNT", key, await redis_now_ms(router) - LIVE_MS, "+inf"))


async def machine(router: Router, namespace: str, known: Known) -> MachineInfo:
    """A machine with its counts over all partitions."""
    states, graph = known.all_states, known.config.graph
    counts = await asyncio.gather(*(_counts(router, part, states) for part in known.partitions))
    live, held = await asyncio.gather(live_workers(router, namespace, known.name), survey(router, known.partitions))
    return MachineInfo(
        name=known.name,
        partitions=known.config.partitions,
        initial=known.initial,
        states=known.states,
        transitions=known.transitions,
        queries=[q["name"] for q in graph.get("queries", ())],
        workers=live,
        waiting=sum(row[0] for row in counts),
        failed=sum(row[1] for row in counts),
        paused=any(lease.paused for lease in held),
        in_state={s: n for i, s in enumerate(states) if (n := sum(row[2 + i] for row in counts)) or s in known.states},
    )


async def _counts(router: Router, part: PartitionKeys, states: list[str]) -> list[int]:
    call, lease = router.call, part.lease
    return list(
        await asyncio.gather(
            call(lease, "HLEN", part.accepted),
            call(lease, "XLEN", part.failed),
            *(call(lease, "ZCARD", part.in_state(s)) for s in states),
        )
    )
