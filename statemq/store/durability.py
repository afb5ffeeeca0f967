"""How safe a write must be before anybody is told of it (P23)."""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

import msgspec

from statemq.errors import UnsupportedServer, UsageError
from statemq.keys import PartitionKeys
from statemq.store.router import Router
from statemq.store.wire import ReplyError, Wire, swallow

WAIT_MS = 2000
"""How long one WAIT may hold up its connection; what was not safe by then is asked again."""

TOUCHED_MS = 60_000
"""How long the key stays that is written before a WAIT."""


class Durability(msgspec.Struct, frozen=True):
    """``fsync``: on the primary's disk; ``replicas``: received by so many."""

    fsync: bool = False
    replicas: int = 0

    @property
    def wait(self) -> tuple[str | int, ...]:
        """The command that waits for it."""
        return ("WAITAOF", 1, 0, WAIT_MS) if self.fsync else ("WAIT", self.replicas, WAIT_MS)


def parse(text: str | None) -> Durability | None:
    """From ``fsync``, ``replicas=N`` or nothing."""
    if not text:
        return None
    if text == "fsync":
        return Durability(fsync=True)
    if match := re.fullmatch(r"replicas=([1-9]\d?)", text):
        return Durability(replicas=int(match[1]))
    raise UsageError(f'"{text}" is no durability; write fsync or replicas=N')


class CannotWait(UsageError):
    """The server's settings have been changed since the client connected; what it was told before stands."""


class Stand(NamedTuple):
    """Which connection a partition's calls take, and which one in turn it is: the next may lead to a server that has lost what was told."""

    wire: Wire
    generation: int


def stand(router: Router, part: PartitionKeys) -> Stand:
    wire = router.wire_for(part.lease)
    return Stand(wire, wire.generation)


async def settled(router: Router, part: PartitionKeys, wanted: Durability, since: Stand) -> bool:
    """Whether all that this partition's connection was told since it was at ``since`` is now as safe as wanted; asks once.

    WAIT is for its own connection's last write, so there is one right before it; and both count only if the connection is still the one
    that was told: after a failover the new server can be safe and have lost it.
    """
    if stand(router, part) != since:
        return False
    written, waited = router.run("touch", [part.touched()], TOUCHED_MS), since.wire.call(*wanted.wait)
    swallow([written, waited])
    try:
        await written
        reply = await waited
    except ReplyError as error:
        raise CannotWait(f"the server at {router.address} cannot give this durability: {error.message}") from error
    enough = reply[0] >= 1 if wanted.fsync else reply >= wanted.replicas
    return bool(enough) and stand(router, part) == since


async def secured(router: Router, part: PartitionKeys, wanted: Durability, since: Stand) -> bool:
    """Returns True once ``settled`` is; False when the connection was lost before: what was told has to be asked, or written, again."""
    while stand(router, part) == since:
        if await settled(router, part, wanted, since):
            return True
    return False


async def check(router: Router, wanted: Durability) -> None:
    """Raises UnsupportedServer where a server cannot wait for that at all, before anything was sent that would have to wait."""
    answers = await asyncio.gather(*(node.call(*wanted.wait[:-1], 1) for node in router.nodes), return_exceptions=True)
    for node, answer in zip(router.nodes, answers, strict=True):
        if isinstance(answer, ReplyError):
            raise UnsupportedServer(f"the server at {node.address} cannot give this durability: {_what_it_takes(wanted, answer)}")


def _what_it_takes(wanted: Durability, answer: ReplyError) -> str:
    if not wanted.fsync:
        return f"replicas=N takes a user who may WAIT ({answer.message})"
    if "unknown command" in answer.message.lower():
        return "fsync takes WAITAOF, which came with Redis and Valkey 7.2; use such a server, or replicas=N"
    return f"fsync takes appendonly yes, and a user who may WAITAOF ({answer.message})"
