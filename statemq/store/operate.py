"""Act: cancel, pause and resume."""

from __future__ import annotations

import asyncio

import msgspec

from statemq import keys as names
from statemq.codec import parse_command_id
from statemq.config import HISTORY_CAP
from statemq.errors import Unknown
from statemq.keys import PartitionKeys
from statemq.records import Outcome
from statemq.store.audit import note, permitted
from statemq.store.catalog import Known
from statemq.store.commands import from_element
from statemq.store.inspect import text
from statemq.store.queues import find_outcome, show
from statemq.store.router import Router

LOOKS = 10
"""As often is looked which command is an inbox's head before a resume goes without it: what was pushed by hand may hide it."""

_encode = msgspec.json.Encoder().encode


async def cancel(router: Router, namespace: str, id: str, by: str) -> str:
    """``cancelled``: it had not begun and has ended now; ``asked``: its owner will end it; ``ended``: it had ended otherwise.

    Raises Unknown.
    """
    machine, p = parse_command_id(id)
    part = PartitionKeys(namespace, machine, p)
    before = await permitted("cancel", show(router, namespace, id))
    await note(router, namespace, machine, "cancel", [id], by)
    word = await end(router, part, id, before.key, before.transition)
    if word != "unknown":
        return word
    ended = await find_outcome(router, part, id)
    if ended is None and before.outcome is None:
        raise Unknown(f"command {id} ended while it was being cancelled, and how is not kept any more", id=id, machine=machine)
    # a resend finds what its first try did
    return "cancelled" if ended is not None and ended.outcome == "cancelled" else "ended"


async def end(router: Router, part: PartitionKeys, id: str, key: str, transition: str, *, spare: bool = False) -> str:
    """The cancel script's word: cancelled, asked (with ``spare`` begun) or unknown. The deed is on record already."""
    outcome = Outcome(id, "cancelled", key, transition, reason="cancelled on request", code="cancelled", attempts=0)
    keys = [part.commands, part.accepted, part.outcomes_, part.history, part.timers, part.timers_data, part.steps(id), part.ready]
    keys += (part.inbox(key), part.lease)
    reply_prefix = names.reply_channel(part.namespace, "")
    asked = router.run("cancel", keys, id, _encode(outcome), HISTORY_CAP, reply_prefix, part.once_, int(spare))
    return text(await permitted("cancel", asked))


async def pause(router: Router, known: Known, key: str | None, by: str) -> None:
    """Nothing new of the instance (or, without a key, of the machine) starts until it is resumed; what runs goes on."""
    await _note(router, known, "pause", [key or "the machine"], by)
    await _pause(router, known, key, "1")


async def resume(router: Router, known: Known, key: str | None, by: str) -> None:
    """What waits goes on; a command that had failed and paused its instance begins its attempts anew."""
    await _note(router, known, "resume", [key or "the machine"], by)
    await _pause(router, known, key, "0")


async def _note(router: Router, known: Known, did: str, what: list[str], by: str) -> None:
    await note(router, known.partitions[0].namespace, known.name, did, what, by)


async def _pause(router: Router, known: Known, key: str | None, on: str) -> None:
    did = "pause" if on == "1" else "resume"
    if key is not None:
        part = known.partition(key)
        for _ in range(LOOKS):
            raw = await router.call(part.lease, "LINDEX", part.inbox(key), 0)
            head = from_element(raw) if raw else None
            id = head.id if head else ""
            if await permitted(did, router.run("pause", _pause_keys(part, key, id), on, key, id)) != b"moved":
                return
        await permitted(did, router.run("pause", _pause_keys(part, key, ""), on, key, ""))
        return
    await asyncio.gather(*(permitted(did, router.run("pause", _pause_keys(part, "", ""), on, "", "")) for part in known.partitions))
    channel = names.news_channel(known.partitions[0].namespace, known.name)
    await permitted(did, router.call(channel, "PUBLISH", channel, "paused" if on == "1" else "resumed"))


def _pause_keys(part: PartitionKeys, key: str, head: str) -> list[str]:
    here = [part.lease, part.commands, part.accepted, part.ready, part.timers]
    return [*here, part.instance(key), part.inbox(key), part.steps(head), part.timers_data]
