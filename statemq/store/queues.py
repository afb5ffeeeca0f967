"""See: what waits or runs, and one command from its id. Queues are shown by a bounded look, which may miss what lies deep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container
from typing import Any

import msgspec

from statemq.codec import parse_command_id, short_time, times
from statemq.errors import Unknown
from statemq.keys import PartitionKeys
from statemq.records import CommandStatus, Outcome, Queued, Step
from statemq.store.catalog import Known
from statemq.store.commands import entry_order, from_element
from statemq.store.glance import PAGE_BYTES, TRIES, Look, journal_steps, parked_element, retried_steps
from statemq.store.inspect import PAGE, fields, in_progress, number, paused_why, plain, text
from statemq.store.periods import outcome_names
from statemq.store.router import Router
from statemq.store.wire import ReplyError

LATER_MS = 3_600_000
"""A time that is further away is told without its seconds."""

_outcome = msgspec.json.Decoder(Outcome).decode
_timer = msgspec.json.Decoder(list[str]).decode


async def queue(router: Router, known: Known, key: str | None, limit: int) -> list[Queued]:
    """Commands that have not ended, in the order in which they were accepted; delayed ones last, by their time."""
    parts = known.partitions if key is None else [known.partition(key)]
    looks = Look(), Look(), Look()
    rows = await asyncio.gather(*(_queue_of(router, part, key, limit, looks) for part in parts))
    # one row an id: a command that is parked while this looks is met in the stream and in its inbox
    found = {row.id or row.entry: row for part in rows for row in part}.values()
    return sorted(found, key=lambda q: (q.due if q.where == "timer" else 0, entry_order(q.entry or "0-0")))[:limit]


async def _queue_of(router: Router, part: PartitionKeys, key: str | None, limit: int, looks: tuple[Look, Look, Look]) -> list[Queued]:
    """``looks``: at the streams, the inboxes and the timers, so that long arguments in one do not hide what is in another."""
    look = PAGE if key is not None else limit
    stream, running, timers, parked = await asyncio.gather(
        looks[0].stream(router, part, look),
        in_progress(router, part, PAGE),
        router.call(part.lease, "ZRANGE", part.timers, 0, look - 1, "WITHSCORES"),
        _keys_with_inbox(router, part) if key is None else _one(key),
    )
    due = {text(timers[i]): number(timers[i + 1]) for i in range(0, len(timers), 2)}
    found = _in_stream(stream, running, key)
    begun = await asyncio.gather(*(_with_trouble(router, part, row) for row in found if row.status == "running" and row.id))
    told = {row.entry: row for row, _ in begun}
    found = [told.get(row.entry, row) for row in found]
    for inbox in await asyncio.gather(*(_inbox(router, part, k, due, limit, looks[1]) for k in parked)):
        found += inbox
    return found + await _delayed(router, part, key, due, looks[2])


async def _one(key: str) -> list[str]:
    return [key]


async def _keys_with_inbox(router: Router, part: PartitionKeys) -> list[str]:
    """Keys that have parked commands, from a bounded look at what is accepted."""
    _, flat = await router.call(part.lease, "HSCAN", part.accepted, 0, "COUNT", PAGE)
    return list(dict.fromkeys(text(v).split(" ", 1)[1] for v in flat[1::2] if v.startswith(b"@") and b" " in v))


async def _inbox(router: Router, part: PartitionKeys, key: str, due: dict[str, int], limit: int, look: Look) -> list[Queued]:
    raw = await look.inbox(router, part, key, limit)
    commands = [c for c in map(from_element, raw) if c is not None]
    if not commands:
        return []
    # P28: an ended one lies there until its turn
    live = await router.call(part.lease, "HMGET", part.accepted, *(c.id for c in commands))
    rows: list[Queued] = []
    for c, where in zip(commands, live, strict=True):
        if where is None:
            continue
        row = Queued(c.id, key, c.transition, "queued", "inbox", c.entry, plain(c.args), due.get(c.id, 0))
        if not rows:  # the head is in progress, sleeps, or has failed and holds up the others
            row, mark = await _with_trouble(router, part, row)
            row = msgspec.structs.replace(row, status="waiting" if c.id in due else "running" if mark else "queued")
        rows.append(row)
    return rows


async def _with_trouble(router: Router, part: PartitionKeys, row: Queued) -> tuple[Queued, str]:
    """With what its journal says of failed attempts; and in whose hands it is, if it runs from an inbox."""
    try:
        attempts, error, mark, tries = await router.call(part.lease, "HMGET", part.steps(row.id), "@attempts", "@error", "@mark", TRIES)
        retrying = await retried_steps(router, part, row.id, tries)
    except ReplyError as damaged:
        return msgspec.structs.replace(row, error=f"its journal cannot be read: {damaged}"), ""
    return msgspec.structs.replace(row, attempts=number(attempts), error=text(error), retrying=retrying), text(mark)


async def _delayed(router: Router, part: PartitionKeys, key: str | None, due: dict[str, int], look: Look) -> list[Queued]:
    if not due:
        return []
    where = await router.call(part.lease, "HMGET", part.accepted, *due)
    delayed = [id for id, place in zip(due, where, strict=True) if place == b"timer"]
    rows = []
    for id, raw in zip(delayed, await look.timers(router, part, delayed), strict=False):  # those behind the bound are not shown
        if raw:
            f = timer_fields(raw)
            if key is None or text(f.get("key")) == key:
                rows.append(_row(f, "delayed", "timer", "", due[id]))
    return rows


def _row(f: dict[str, bytes], status: str, where: str, entry: str, due: int = 0) -> Queued:
    args = plain(f.get("args")) if f.get("args") else None
    return Queued(text(f.get("id")), text(f.get("key")), text(f.get("transition")), status, where, entry, args, due)


def timer_fields(raw: bytes) -> dict[str, bytes]:
    try:
        flat = _timer(raw)
    except msgspec.MsgspecError:
        return {}
    return {flat[i]: flat[i + 1].encode() for i in range(0, len(flat) - 1, 2)}


async def find_outcome(router: Router, part: PartitionKeys, id: str) -> Outcome | None:
    """How the command ended, if that is still kept."""
    names, _ = await outcome_names(router, part)
    rows = await asyncio.gather(*(router.call(part.lease, "HGET", name, id) for name in names))
    raw = next((row for row in rows if row is not None), None)
    return None if raw is None else _outcome(raw)


async def show(router: Router, namespace: str, id: str) -> CommandStatus:
    """Where the command is and what it has done. Raises Unknown when nothing is known of it (any more)."""
    name, p = parse_command_id(id)
    part = PartitionKeys(namespace, name, p)
    where, said, due, steps = await asyncio.gather(
        router.call(part.lease, "HGET", part.accepted, id),
        router.call(part.lease, "HMGET", part.steps(id), "@attempts", "@error", "@mark", "@cancel", TRIES),
        router.call(part.lease, "ZSCORE", part.timers, id),
        journal_steps(router, part, id),
    )
    if where is None:
        outcome = await find_outcome(router, part, id)
        if outcome is None:
            raise Unknown(
                f"nothing is known of command {id}: never accepted, or ended longer ago than outcomes are kept", id=id, machine=name
            )
        return CommandStatus(id, outcome.outcome, name, outcome.key, outcome.transition, attempts=outcome.attempts, outcome=outcome)
    status, entry, worker, f = await _place(router, part, id, text(where), due is not None)
    attempts, error, by, cancel, tries = said
    mark = text(by).split(" ")[0]
    if status == "queued" and entry and text(where).startswith("@") and mark and await _is_head(router, part, text(f.get("key")), id):
        status, worker = "running", mark
    key = text(f.get("key"))
    paused, unread = await paused_why(router, part, key) if status in ("queued", "waiting") else ("", "")
    ahead, retrying = await asyncio.gather(
        behind(router, part, key, id) if status == "queued" else _nothing(), retried_steps(router, part, id, tries)
    )
    return CommandStatus(
        id=id,
        status=status,
        paused=paused,
        machine=name,
        key=key,
        transition=text(f.get("transition")),
        args=plain(f.get("args")),
        entry=entry,
        attempts=number(attempts),
        error=text(error) or unread,
        due=number(due),
        origin=text(f.get("origin")),
        worker=worker,
        cancel_asked=cancel is not None,
        steps=_steps(steps),
        retrying=retrying,
        behind=ahead,
    )


async def behind(router: Router, part: PartitionKeys, key: str, id: str = "") -> str:
    """Behind what the instance's command, or one that is sent now, waits: ``slow, which sleeps until 14 Dec 10:00Z, and 2 more``; empty
    where nothing is before it. A short look: of a long queue, or behind long arguments, it sees the beginning."""
    head, stream, running = await asyncio.gather(
        router.call(part.lease, "LINDEX", part.inbox(key), 0), Look(PAGE_BYTES).stream(router, part, PAGE), in_progress(router, part, PAGE)
    )
    rows: list[Queued] = []
    if head and (command := from_element(head)) is not None:
        due = number(await router.call(part.lease, "ZSCORE", part.timers, command.id))
        rows = await _inbox(router, part, key, {command.id: due} if due else {}, PAGE, Look(PAGE_BYTES))
    rows += _in_stream(stream, running, key)
    ids = list(dict.fromkeys(row.id for row in rows))  # one that is parked while this looks is met twice
    before = ids.index(id) if id in ids else len(ids)
    if not before:
        return ""
    first = rows[0]
    if first.where == "stream" and first.status == "running" and first.id:
        first, _ = await _with_trouble(router, part, first)
    more = f", and {before - 1} more" if before > 1 else ""
    return f"{first.transition}, which {_doing(first, round(time.time() * 1000))}{more}"


def _in_stream(stream: list[Any], running: Container[str], key: str | None) -> list[Queued]:
    """The commands among a stream's entries, those of the key if one is given."""
    found = []
    for entry, flat in stream:
        f = fields(flat)
        if text(f.get("transition", b"")).startswith("@") or (key is not None and text(f.get("key")) != key):
            continue
        found.append(_row(f, "running" if text(entry) in running else "queued", "stream", text(entry)))
    return found


async def _nothing() -> str:
    return ""


def _doing(row: Queued, now_ms: int) -> str:
    at = f" until {_until(row.due, now_ms)}" if row.due else ""
    if row.retrying:
        step = row.retrying[-1]
        again = f", and is tried again at {_until(step.due, now_ms)}" if step.due > now_ms else ""
        return f"runs the step {step.name}, which has failed {times(step.tries)}{again}"
    if row.error:
        return f"has failed {times(row.attempts)}, and waits{at}" if row.attempts else f"waits{at}"
    return f"sleeps{at}" if row.due else {"running": "runs"}.get(row.status, "waits, too")


def _until(at_ms: int, now_ms: int) -> str:
    return short_time(at_ms, now_ms, seconds=at_ms - now_ms < LATER_MS)


async def _place(router: Router, part: PartitionKeys, id: str, where: str, timed: bool) -> tuple[str, str, str, dict[str, bytes]]:
    """Status, entry id, worker and fields, from what T:accepted says."""
    if where == "timer":
        raw = await router.call(part.lease, "HGET", part.timers_data, id)
        return "delayed", "", "", timer_fields(raw) if raw else {}
    if where.startswith("@"):
        entry, _, key = where[1:].partition(" ")
        f: dict[str, bytes] = {"key": key.encode()}
        raw = await parked_element(router, part, key, entry, id)
        if raw is not None and (command := from_element(raw)) is not None:
            f |= {"transition": command.transition.encode(), "args": command.args, "origin": command.origin.encode()}
        return "waiting" if timed else "queued", entry, "", f
    rows, running = await asyncio.gather(
        router.call(part.lease, "XRANGE", part.commands, where, where), in_progress(router, part, 1, where)
    )
    return "running" if running else "queued", where, running.get(where, ""), fields(rows[0][1]) if rows else {}


async def _is_head(router: Router, part: PartitionKeys, key: str, id: str) -> bool:
    raw = await router.call(part.lease, "LINDEX", part.inbox(key), 0)
    head = from_element(raw) if raw else None
    return head is not None and head.id == id


def _steps(journal: dict[str, bytes]) -> list[Step]:
    """In the order of their records. A hash keeps no order; a record has its place in itself, those of former versions only their time."""
    rows = []
    for name, raw in journal.items():
        value: Any = plain(raw)
        value = value if isinstance(value, dict) else {"result": value}
        step = _step(name, value)
        rows.append((_count(value.get("n")), step.at, name, step))
    return [step for *_, step in sorted(rows, key=lambda row: row[:3])]


def _step(name: str, value: dict[str, Any]) -> Step:
    """A journal field as people see it; the worker's StepRecord, read leniently."""
    error = value.get("error")
    words = [str(error[word]) for word in ("type", "reason") if error.get(word)] if isinstance(error, dict) else [str(error or "")]
    return Step(name, value.get("result"), ": ".join(words), _count(value.get("at")), _count(value.get("took_ms")))


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
