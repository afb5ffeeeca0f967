"""Act: cancel, pause and resume, and what to do with dead letters."""

from __future__ import annotations

import asyncio

import msgspec

from statemq import keys as names
from statemq.codec import decode, digest, parse_command_id
from statemq.config import HISTORY_CAP, LIMITS
from statemq.errors import Unknown, UsageError
from statemq.keys import PartitionKeys
from statemq.records import DeadLetter, Outcome
from statemq.store.append import Appender
from statemq.store.audit import note, permitted
from statemq.store.catalog import Known
from statemq.store.commands import from_element
from statemq.store.draft import Draft
from statemq.store.inspect import fields, number, text
from statemq.store.queues import find_outcome, show
from statemq.store.router import Router

_encode = msgspec.json.Encoder().encode


async def cancel(router: Router, namespace: str, id: str, by: str) -> str:
    """``cancelled``: it had not begun and has ended now; ``asked``: its owner will end it; ``ended``: it had ended otherwise.

    Raises Unknown.
    """
    machine, p = parse_command_id(id)
    part = PartitionKeys(namespace, machine, p)
    before = await show(router, namespace, id)
    await note(router, namespace, machine, "cancel", [id], by)
    outcome = Outcome(id, "cancelled", before.key, before.transition, reason="cancelled on request", code="cancelled", attempts=0)
    keys = [part.commands, part.accepted, part.outcomes_, part.history, part.timers, part.timers_data, part.steps(id), part.ready]
    keys.append(part.inbox(before.key))
    reply_prefix = names.reply_channel(namespace, "")
    word = text(await permitted("cancel", router.run("cancel", keys, id, _encode(outcome), HISTORY_CAP, reply_prefix, part.once_)))
    if word != "unknown":
        return word
    ended = await find_outcome(router, part, id)
    if ended is None and before.outcome is None:
        raise Unknown(f"command {id} ended while it was being cancelled, and how is not kept any more", id=id, machine=machine)
    # a resend finds what its first try did
    return "cancelled" if ended is not None and ended.outcome == "cancelled" else "ended"


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
        raw = await router.call(part.lease, "LINDEX", part.inbox(key), 0)
        head = from_element(raw) if raw else None
        id = head.id if head else ""
        await permitted(did, router.run("pause", _pause_keys(part, key, id), on, key, id))
        return
    await asyncio.gather(*(permitted(did, router.run("pause", _pause_keys(part, "", ""), on, "", "")) for part in known.partitions))
    channel = names.news_channel(known.partitions[0].namespace, known.name)
    await permitted(did, router.call(channel, "PUBLISH", channel, "paused" if on == "1" else "resumed"))


def _pause_keys(part: PartitionKeys, key: str, head: str) -> list[str]:
    here = [part.lease, part.commands, part.accepted, part.ready, part.timers]
    return [*here, part.instance(key), part.inbox(key), part.steps(head)]


async def failed(router: Router, known: Known, limit: int) -> list[DeadLetter]:
    """Dead letters, oldest first."""
    rows = await asyncio.gather(*(router.call(p.lease, "XRANGE", p.failed, "-", "+", "COUNT", limit) for p in known.partitions))
    found = [_letter(part, *entry) for part, row in zip(known.partitions, rows, strict=True) for entry in row]
    return sorted(found, key=lambda letter: (letter.at, letter.letter))[:limit]


def _letter(part: PartitionKeys, entry: bytes, flat: list[bytes]) -> DeadLetter:
    f = fields(flat)
    return DeadLetter(
        letter=f"{part.number}/{text(entry)}",
        id=text(f.get("id")),
        key=text(f.get("key")),
        transition=text(f.get("transition")),
        args=text(f.get("args")),
        reason=text(f.get("reason")),
        error=text(f.get("error")),
        traceback=text(f.get("traceback")),
        attempts=number(f.get("attempts")),
        at=number(f.get("at")),
    )


async def failed_retry(router: Router, appender: Appender, known: Known, letters: list[str] | None, by: str) -> list[str]:
    """The letters' commands are queued again under new ids, which are returned, and the letters are gone.

    Without ``letters`` all that can be. Two who retry a letter at once queue its command once.
    """
    ids = []
    for part, entry in await _named(router, known, letters):
        found = await router.call(part.lease, "XRANGE", part.failed, entry, entry)
        if not found:
            if letters is not None:
                raise UsageError(f"there is no dead letter {part.number}/{entry} of {known.name} (any more)")
            continue
        letter = _letter(part, *found[0])
        args = letter.args.encode() or b"{}"
        if why := _unfit(letter):
            if letters is not None:
                raise UsageError(f"dead letter {letter.letter} cannot be retried: {why}")
            continue
        await _note(router, known, "retry", [letter.letter], by)
        draft = Draft(
            known.partition(letter.key),
            letter.key,
            letter.transition,
            args,
            [],
            known.config.partitions,
            idempotency_key=f"@failed {letter.letter}",
            digest=digest(letter.transition.encode(), args),
        )
        ids.append((await appender.append(draft)).id)
        await router.call(part.lease, "XDEL", part.failed, entry)
    return ids


def _unfit(letter: DeadLetter) -> str:
    """Why its command cannot be queued again; empty if it can."""
    if not (letter.key and letter.transition):
        return f"it was no command ({letter.reason})"
    try:
        decode(letter.args or "{}")
    except ValueError:
        return f"its arguments are no JSON, or were cut at {LIMITS.buried_field} bytes; send the command anew"
    return ""


async def failed_discard(router: Router, known: Known, letters: list[str] | None, by: str) -> int:
    """The letters are gone; how many there were."""
    named = await _named(router, known, letters)
    await _note(router, known, "discard", [f"{part.number}/{entry}" for part, entry in named], by)
    return sum(await asyncio.gather(*(permitted("discard", router.call(part.lease, "XDEL", part.failed, entry)) for part, entry in named)))


async def _named(router: Router, known: Known, letters: list[str] | None) -> list[tuple[PartitionKeys, str]]:
    if letters is None:
        rows = await asyncio.gather(*(router.call(p.lease, "XRANGE", p.failed, "-", "+") for p in known.partitions))
        return [(part, text(entry)) for part, row in zip(known.partitions, rows, strict=True) for entry, _ in row]
    named = []
    for letter in letters:
        p, _, entry = letter.partition("/")
        ms, _, n = entry.partition("-")
        if not (p.isdecimal() and ms.isdecimal() and n.isdecimal() and int(p) < len(known.partitions)):
            raise UsageError(f'"{letter}" names no dead letter of {known.name}; one looks like 7/1700000000000-0')
        named.append((known.partitions[int(p)], entry))
    return named
