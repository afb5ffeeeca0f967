"""Who cancelled, paused, resumed, retried or discarded what: written before it is done, kept up to a cap (S6).

And whether they may: asked before that, so that what is refused has not been done in part.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from statemq import keys
from statemq.config import AUDIT_CAP
from statemq.errors import UnsupportedServer
from statemq.records import AuditEntry
from statemq.store.acl import called_by
from statemq.store.glance import stream_pages
from statemq.store.inspect import PAGE, fields, text
from statemq.store.router import Router
from statemq.store.wire import ReplyError, swallow

_NOTED = frozenset({"XADD"})

NEEDS = {
    "cancel": called_by("cancel") | _NOTED,
    "pause": called_by("pause") | _NOTED | {"PUBLISH"},
    "resume": called_by("pause") | _NOTED | {"PUBLISH"},
    "retry": called_by("retry") | _NOTED,
    "discard": _NOTED | {"XDEL"},
    "repair": called_by("mend") | {"HDEL"},
}
"""What each deed calls that writes or tells, by itself and by its script."""


async def ask(router: Router, namespace: str, machine: str, did: str) -> None:
    """This user may do all that it takes. Raises UnsupportedServer before anything was written if not."""
    channel = keys.reply_channel(namespace, "") if did == "cancel" else keys.news_channel(namespace, machine)
    try:
        asked = router.run("rights", [keys.audit(namespace, machine)], channel, *sorted(NEEDS[did]))
        refused = ", ".join(map(text, await permitted(did, asked)))
    except UnsupportedServer as error:
        raise _may_not(did, str(error)) from None
    if refused:
        raise _may_not(did, f"not allowed: {refused}")


def _may_not(did: str, why: str) -> UnsupportedServer:
    said = f"this user of Redis may not {did}: that takes the rule of `statemq acl operator`"
    return UnsupportedServer(why if why.startswith(said) else f"{said} ({why})")


async def note(router: Router, namespace: str, machine: str, did: str, what: list[str], by: str) -> None:
    """It is on record that ``by``, who may, is about to do this, an entry for each thing."""
    await ask(router, namespace, machine, did)
    await write(router, namespace, machine, did, what, by)


async def write(router: Router, namespace: str, machine: str, did: str, what: list[str], by: str) -> None:
    """The same of somebody who was asked for already: what is done to many is noted page by page."""
    name = keys.audit(namespace, machine)
    calls = [router.call(name, "XADD", name, "MAXLEN", "~", AUDIT_CAP, "*", "did", did, "what", thing, "by", by) for thing in what]
    swallow(calls)  # the first one that fails is raised, for all
    for call in calls:
        await permitted(did, call)


async def permitted(did: str, asked: Awaitable[Any]) -> Any:
    """The answer. Raises UnsupportedServer, with the role that it takes, where this user may not do it, as such or within a script."""
    try:
        return await asked
    except ReplyError as error:
        if error.word != "NOPERM":
            raise
        raise _may_not(did, str(error)) from error


async def entries(router: Router, namespace: str, machine: str, limit: int) -> list[AuditEntry]:
    """The last ones, oldest first."""
    name = keys.audit(namespace, machine)
    found: list[AuditEntry] = []
    async for page in stream_pages(router, name, name, backwards=True, first=min(limit, PAGE), most=PAGE):
        for entry, flat in page[: limit - len(found)]:
            f = fields(flat)
            at = int(text(entry).partition("-")[0])
            found.append(AuditEntry(text(entry), text(f.get("did")), text(f.get("what")), text(f.get("by")), at))
        if len(found) == limit:
            break
    return found[::-1]
