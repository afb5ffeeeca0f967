"""What a namespace knows of its machines: created once, read by everybody.

The config lies in one slot and the partitions' leases in others, so creation takes several calls. ``complete`` is set
last: until then whoever comes does the rest, and doing it twice changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from statemq import events, keys
from statemq.codec import decode, encode, short_id
from statemq.config import FIRST_SCHEMA, FORMER_STATES, SCHEMA, check_namespace
from statemq.errors import PartitionMismatch, SchemaTooNew, ServerError, UnknownMachine
from statemq.store.router import Router
from statemq.store.wire import ReplyError


class Config(msgspec.Struct, frozen=True):
    """A machine as this namespace has it. ``incarnation`` is new whenever the namespace was made anew."""

    machine: str
    schema: int
    incarnation: str
    partitions: int
    graph: dict[str, Any]
    former: list[str] = []
    """States that a former graph declared and this one does not."""

    @property
    def states(self) -> list[str]:
        return list(self.graph.get("states", ()))


async def declare(
    router: Router,
    namespace: str,
    machine: str,
    partitions: int,
    graph: dict[str, Any],
    *,
    schema: int = FIRST_SCHEMA,
    update: bool,
    reinit: bool = False,
) -> Config:
    """The machine is known in the namespace, and each of its partitions carries the incarnation; its config.

    With ``update`` the declared graph is this one, and the machine's schema is at least ``schema``. ``reinit`` also marks partitions that
    were wiped, or belong to an earlier incarnation, as this one's. Raises PartitionMismatch, SchemaTooNew.
    """
    check_namespace(namespace)
    key = keys.config(namespace, machine)
    asked = router.run("declare", [key], schema, short_id(), partitions, encode(graph), int(update), FORMER_STATES, SCHEMA)
    *row, raised_from = await _sound(asked, key)
    config, complete = _read(machine, namespace, row)
    if raised_from:
        text = f"{machine} is stored by schema {schema} now, no longer by {raised_from.decode()}: a process of a former statemq refuses it"
        events.emit(events.Warned(machine=machine, text=text))
    if config.partitions != partitions:
        raise PartitionMismatch(machine, partitions, config.partitions)
    if not complete or reinit:
        mark = "HSET" if reinit else "HSETNX"
        leases = [keys.PartitionKeys(namespace, machine, p).lease for p in range(partitions)]
        await asyncio.gather(*(router.call(lease, mark, lease, "incarnation", config.incarnation) for lease in leases))
        await router.call(keys.machines(namespace), "SADD", keys.machines(namespace), machine)
    if not complete:
        await router.call(key, "HSET", key, "complete", 1)
    return config


async def read_config(router: Router, namespace: str, machine: str) -> Config:
    """The machine's config. Raises UnknownMachine, which lists the known ones; SchemaTooNew."""
    check_namespace(namespace)
    key = keys.config(namespace, machine)
    row = await _sound(router.call(key, "HMGET", key, "schema", "incarnation", "partitions", "complete", "graph", "former"), key)
    if None in row[:3]:
        raise UnknownMachine(machine, namespace, await known_machines(router, namespace))
    config, complete = _read(machine, namespace, row)
    if not complete:
        raise UnknownMachine(machine, namespace, [m for m in await known_machines(router, namespace) if m != machine])
    return config


async def known_machines(router: Router, namespace: str) -> list[str]:
    """The names of all machines of the namespace, sorted."""
    key = keys.machines(check_namespace(namespace))
    return sorted(name.decode() for name in await router.call(key, "SMEMBERS", key))


async def _sound(asked: asyncio.Future[Any], key: str) -> Any:
    try:
        return await asked
    except ReplyError as error:
        raise ServerError(f"{key} cannot be read: {error}") from error


def _read(machine: str, namespace: str, row: list[bytes | None]) -> tuple[Config, bool]:
    schema, incarnation, partitions, complete, graph, former = row
    try:
        config = Config(
            machine,
            int(schema or 0),
            (incarnation or b"").decode(),
            int(partitions or 0),
            decode(graph or b"{}"),
            (former or b"").decode().split(),
        )
    except ValueError as error:
        raise ServerError(f"{keys.config(namespace, machine)} was damaged by hand: {error}") from error
    if config.schema > SCHEMA:
        raise SchemaTooNew(
            f"{machine} in namespace {namespace} was written by a newer statemq (schema {config.schema}; this one reads {SCHEMA}); "
            "update this process"
        )
    return config, complete == b"1"
