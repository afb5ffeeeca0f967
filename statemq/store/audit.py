"""Who cancelled, paused, resumed, retried or discarded what: written before it is done, kept up to a cap (S6)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from statemq import keys
from statemq.config import AUDIT_CAP
from statemq.errors import UnsupportedServer
from statemq.records import AuditEntry
from statemq.store.inspect import fields, text
from statemq.store.router import Router
from statemq.store.wire import ReplyError


async def note(router: Router, namespace: str, machine: str, did: str, what: list[str], by: str) -> None:
    """It is on record that ``by`` is about to do this, an entry for each thing."""
    name = keys.audit(namespace, machine)
    for thing in what:
        await permitted(did, router.call(name, "XADD", name, "MAXLEN", "~", AUDIT_CAP, "*", "did", did, "what", thing, "by", by))


async def permitted(did: str, asked: Awaitable[Any]) -> Any:
    """The answer. Raises UnsupportedServer, with the role that it takes, where this user may not do it, as such or within a script."""
    try:
        return await asked
    except ReplyError as error:
        if error.word != "NOPERM" and "ACL failure in script" not in error.message:
            raise
        raise UnsupportedServer(f"this user of Redis may not {did}: that takes the rule of `statemq acl operator` ({error})") from error


async def entries(router: Router, namespace: str, machine: str, limit: int) -> list[AuditEntry]:
    """The last ones, oldest first."""
    name = keys.audit(namespace, machine)
    found = []
    for entry, flat in await router.call(name, "XREVRANGE", name, "+", "-", "COUNT", limit):
        f = fields(flat)
        at = int(text(entry).partition("-")[0])
        found.append(AuditEntry(text(entry), text(f.get("did")), text(f.get("what")), text(f.get("by")), at))
    return found[::-1]
