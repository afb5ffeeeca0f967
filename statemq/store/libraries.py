"""Function libraries of other versions of statemq are removed from a server when no worker has used them for a while (I8).

Each worker says in its registry which library it calls. What is removed though somebody needs it is no loss: who calls it finds no
function and loads it again, or runs the same scripts by their hashes (P22). That happens to a worker that starts at that very moment, to
clients of a version that has no worker any more, and to other namespaces on the same server, whose registries nobody else may read. So a
library that was removed and has come back is left alone for good.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from typing import Any

import msgspec

from statemq import keys as names
from statemq.store.declare import known_machines
from statemq.store.lease import LIVE_MS, redis_now_ms
from statemq.store.router import Router
from statemq.store.scripts import library
from statemq.store.wire import ReplyError, Wire

EVERY_S = 300.0
"""How often a worker looks, about."""

KEEP_S = 3600.0
"""How long nobody must have used a library: a deployment, or a rollback, brings its workers back sooner."""

OURS = re.compile(r"statemq_[0-9a-f]{12}")

log = logging.getLogger("statemq.store")


class _About(msgspec.Struct):
    library: str = ""


class Libraries:
    """What one worker has seen of them."""

    def __init__(self, router: Router, namespace: str) -> None:
        self._router, self._namespace = router, namespace
        self._unused_since: dict[tuple[Wire, str], float] = {}
        self._removed: set[tuple[Wire, str]] = set()

    async def watch(self) -> None:
        """Looks now and then, for as long as it is not cancelled."""
        while True:
            await asyncio.sleep(EVERY_S * random.uniform(0.75, 1.25))  # noqa: S311 - so that workers take turns
            await self.tidy(time.monotonic())

    async def tidy(self, now_s: float) -> None:
        """One look at each server of this Redis."""
        try:
            used = await self._used()
        except ReplyError as error:  # a registry that was damaged by hand: then they stay
            log.debug("function libraries are not looked after: %s", error)
            return
        for node in self._router.nodes if used is not None else ():
            try:
                await self._tidy_node(node, used or set(), now_s)
            except ReplyError as error:  # a node that is a replica now, or a user who may not: the others are looked after all the same
                log.debug("function libraries of %s are not looked after: %s", node.address, error)

    async def _used(self) -> set[str] | None:
        """The libraries of all live workers of the namespace; None if one of them does not say which."""
        used = {library().name}
        since_ms = await redis_now_ms(self._router) - LIVE_MS
        for machine in await known_machines(self._router, self._namespace):
            workers, about = names.workers(self._namespace, machine), names.workers_about(self._namespace, machine)
            live = await self._router.call(workers, "ZRANGEBYSCORE", workers, since_ms, "+inf")
            said = await self._router.call(about, "HMGET", about, *live) if live else []
            found = {_library(raw) for raw in said}
            if "" in found:
                return None
            used |= found
        return used

    async def _tidy_node(self, node: Wire, used: set[str], now_s: float) -> None:
        await self._router.scripts_of(node).look(node)
        listed = await node.call("FUNCTION", "LIST", "LIBRARYNAME", "statemq_*")
        there = {name for name in map(_name, listed) if OURS.fullmatch(name)}
        unused = {(node, name) for name in there - used} - self._removed
        self._unused_since = {at: s for at, s in self._unused_since.items() if at[0] is not node or at in unused}
        for at in sorted(unused, key=lambda at: at[1]):
            if now_s - self._unused_since.setdefault(at, now_s) >= KEEP_S:
                await self._remove(*at)

    async def _remove(self, node: Wire, name: str) -> None:
        self._removed.add((node, name))
        try:
            await node.call("FUNCTION", "DELETE", name)
        except ReplyError as error:
            if "not found" not in error.message.lower():  # else another worker was faster, or this is a resend
                raise
        log.info("function library %s was removed from %s: no worker has used it for an hour", name, node.address)


def _name(listed: Any) -> str:
    """The name in a row of FUNCTION LIST: names and values in turn."""
    row = dict(zip(listed[::2], listed[1::2], strict=False))
    return str(row.get(b"library_name", b"").decode(errors="replace"))


def _library(raw: bytes | None) -> str:
    try:
        return msgspec.json.decode(raw or b"{}", type=_About).library
    except msgspec.MsgspecError:
        return ""
