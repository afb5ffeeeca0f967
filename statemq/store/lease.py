"""Who owns what: acquire, renew, release, the registry of workers, and a look at who holds a partition."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from statemq import keys as names
from statemq.keys import PartitionKeys
from statemq.store.fence import Fence, Fenced, Rewound, ScriptFailed, TenureOver
from statemq.store.router import Router
from statemq.store.wire import ReplyError

LIVE_MS = 3_500
"""A worker counts in the shares while its last life sign is younger than this."""

FORGET_MS = 3_600_000
"""A worker that has been silent for an hour leaves the registry when another joins."""


class Held(msgspec.Struct, frozen=True):
    """A lease as read: empty token, free. ``deadline_ms`` is Redis time; ``said_ms`` the same as it stands in Redis, whatever becomes of
    its clock; 0 if it was not read there."""

    token: str = ""
    owner: str = ""
    deadline_ms: int = 0
    paused: bool = False
    process: str = ""
    """The owner's, by name; empty if it does not say."""
    said_ms: int = 0


class Acquired(msgspec.Struct, frozen=True):
    """The answer to a successful acquire."""

    token: str
    last_entry: str
    dead: str
    """The former owner, if it died while it held the partition (P14); else empty."""
    next_due_ms: int | None
    paused: bool
    own_ms: int
    """The partition's time, which is ahead of Redis time where that was set back."""
    redis_ms: int
    """Redis time, at the same moment."""
    pending: dict[str, int]
    """Entries that were in progress → how often an owner has died of them."""

    @property
    def crashed(self) -> bool:
        return self.dead != ""


class NotAcquired(msgspec.Struct, frozen=True):
    """``word``: taken, alive, wiped or foreign; with taken, who has it now."""

    word: str
    token: str = ""
    owner: str = ""


async def acquire(
    router: Router,
    keys: PartitionKeys,
    *,
    worker: str,
    n: int,
    believed: str,
    lease_ms: int,
    incarnation: str,
    owner: str = "",
    process: str = "",
    silent: str,
    ended: bool = False,
    lives: bool = False,
    reinit: bool,
    passed_ms: int = 0,
) -> Acquired | NotAcquired:
    """The partition is this worker's, or who stands in the way (P4).

    ``process``: the caller's, by name. ``owner``: who is believed to hold it; ``silent``: the same, when its process has ended, or it was
    seen alive and then not (P5).
    ``ended``, ``lives``: what is known of its process; one that lives has not crashed, whatever becomes of its lease.
    ``passed_ms``: its deadline as it stands there, when it has passed by this worker's clock, wherever Redis' was set meanwhile.
    """
    seen = "ended" if ended else "lives" if lives else "silent" if silent else ""
    r = await router.run(
        "acquire", [keys.lease, keys.commands, keys.timers], worker, n, believed, lease_ms, incarnation,
        keys.alive_channel(silent or owner) if silent or owner else "", "1" if reinit else "",
        names.news_channel(keys.namespace, keys.machine), keys.number, seen, process,
        passed_ms or "",
    )  # fmt: skip
    word = r[0].decode()
    if word != "done":
        return NotAcquired(word, *(x.decode() for x in r[1:3]))
    return Acquired(
        token=r[1].decode(),
        last_entry=r[2].decode(),
        dead=r[3].decode(),
        next_due_ms=int(float(r[4])) if r[4] else None,
        paused=r[5] == b"1",
        redis_ms=int(r.pop()),
        own_ms=int(r.pop()),
        pending={r[i].decode(): int(r[i + 1]) for i in range(6, len(r), 2)},
    )


async def renew(router: Router, tenures: Sequence[Fence], lease_ms: int) -> list[bool | TenureOver]:
    """For each tenure (in a cluster, of one partition) whether it is paused, or how it has ended. Not for its own connection only."""
    args: list[str | int] = [lease_ms]
    for fence in tenures:
        args += (fence.token, fence.answered)
    words = await router.run("renew", [fence.keys.lease for fence in tenures], *args)
    return [_renewed(word.decode(errors="replace")) for word in words]


def _renewed(word: str) -> bool | TenureOver:
    if word in ("held", "paused"):
        return word == "paused"
    if word == "fenced":
        return Fenced()
    return Rewound() if word == "rewound" else ScriptFailed(word)


async def release(router: Router, keys: PartitionKeys, token: str) -> bool:
    """The partition is free and its machine's channel says so; False if it was not ours any more."""
    channel = names.news_channel(keys.namespace, keys.machine)
    return bool(await router.run("release", [keys.lease], token, channel, keys.number) == b"done")


async def beat(router: Router, namespace: str, machine: str, worker: str, about: bytes, *, gone: bool = False) -> list[str]:
    """This worker is in the machine's registry (or, gone, not any more). Returns the ids of the live ones."""
    keys = [names.workers(namespace, machine), names.workers_about(namespace, machine)]
    channel = names.news_channel(namespace, machine)
    live: list[bytes] = await router.run("beat", keys, worker, about, LIVE_MS, FORGET_MS, "1" if gone else "", channel)
    return [w.decode(errors="replace") for w in live]


class About(msgspec.Struct, frozen=True):
    """What a worker says of itself in the registry, as far as its peers need it; empty if it says nothing."""

    process: str = ""
    lag_ms: int = 0
    """How late its life sign ran lately."""


async def abouts(router: Router, namespace: str, machine: str, workers: Sequence[str]) -> dict[str, About]:
    """What each of these workers says of itself."""
    key = names.workers_about(namespace, machine)
    try:
        said = await router.call(key, "HMGET", key, *workers)
    except ReplyError:  # damaged by hand: the life thread complains of it
        said = [None] * len(workers)
    return {worker: _about(raw) for worker, raw in zip(workers, said, strict=True)}


def _about(raw: bytes | None) -> About:
    try:
        return msgspec.json.decode(raw or b"{}", type=About)
    except msgspec.MsgspecError:
        return About()


async def survey(router: Router, partitions: list[PartitionKeys]) -> list[Held]:
    """The leases of these partitions as they are now."""
    asked = [router.call(k.lease, "HMGET", k.lease, "token", "owner", "deadline", "paused", "process") for k in partitions]
    if asked:
        await asyncio.wait(asked)
    return [_held(answer) for answer in asked]


def _held(answer: asyncio.Future[list[bytes | None]]) -> Held:
    """A lease that somebody damaged by hand counts as free: who tries to take it finds out and says so."""
    if isinstance(answer.exception(), ReplyError):
        return Held()
    token, owner, deadline, paused, said = answer.result()
    try:
        worker, _, process = (said or b"").decode().partition(" ")
        owns = (owner or b"").decode()
        # a worker of a former version writes none, and leaves the one that stands there
        ends_ms = int(deadline or 0)
        return Held((token or b"").decode(), owns, ends_ms, paused == b"1", process if worker == owns else "", ends_ms)
    except ValueError:
        return Held()


async def redis_now_ms(router: Router) -> int:
    seconds, micros = await router.home.call("TIME")
    return int(seconds) * 1000 + int(micros) // 1000
