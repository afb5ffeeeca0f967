"""Dead letters: what is kept of a command that failed for good, and how it is seen, tried again or discarded."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from statemq.codec import check_depth, command_id, decode, encode
from statemq.config import LIMITS
from statemq.errors import BacklogFull, NamespaceLost, ServerError, StatemqError, StreamExhausted, UsageError
from statemq.keys import PartitionKeys, partition_of
from statemq.records import DeadLetter
from statemq.store.audit import ask, note, permitted, write
from statemq.store.catalog import Known
from statemq.store.commands import Queued
from statemq.store.durability import Durability, secured, stand
from statemq.store.glance import merged, stream_pages
from statemq.store.inspect import fields, number, text
from statemq.store.router import Router

PAGE = 32
"""The most letters of one partition that are read at a time: with whole arguments they may be large."""


def kept(c: Queued) -> list[str]:
    """What a letter says of its command: all that a retry needs, as it came. Who waited for the command has heard of its failure, so
    neither its reply channel nor the chain of its callers is kept."""
    said = ["id", c.id, "key", c.key, "transition", c.transition]
    if wrong := _wrong_with(c.args):  # by hand: nothing can be done with them but to show how they begin
        said += ["args_garbled", c.args[: LIMITS.buried_field].decode(errors="replace"), "args_wrong", wrong]
    else:
        said += ["args", c.args.decode()]
    for name in ("if_state", "if_version", "trace", "once", "origin"):
        if value := getattr(c, name):
            said += [name, value]
    if c.more:
        said += ["more", encode(c.more).decode()]
    return said


def _wrong_with(args: bytes) -> str:
    """Why they cannot be arguments, whatever the transition; empty if they can."""
    try:
        check_depth(args)
        return "" if isinstance(decode(args), dict) else "no JSON object"
    except (ValueError, RecursionError):
        return "no JSON"


async def failed(router: Router, known: Known, limit: int) -> list[DeadLetter]:
    """Dead letters, oldest first."""
    return await merged([_letters(router, known, part) for part in known.partitions], lambda letter: (letter.at, letter.letter), limit)


async def _letters(
    router: Router, known: Known, part: PartitionKeys, *, since: str = "-", until: str = "+"
) -> AsyncGenerator[DeadLetter, None]:
    """A partition's, oldest first; the first one alone, and then by how large they are: all partitions are read beside one another."""
    async for page in stream_pages(router, part.lease, part.failed, since, until, most=PAGE):
        for entry, flat in page:
            yield _letter(known, part, entry, fields(flat))


def _letter(known: Known, part: PartitionKeys, entry: bytes, f: dict[str, bytes]) -> DeadLetter:
    return DeadLetter(
        letter=f"{part.number}/{text(entry)}",
        id=text(f.get("id")),
        key=text(f.get("key")),
        transition=text(f.get("transition")),
        args=text(f.get("args") or f.get("args_garbled")),
        reason=text(f.get("reason")),
        error=text(f.get("error")),
        traceback=text(f.get("traceback")),
        attempts=number(f.get("attempts")),
        at=number(f.get("at")),
        if_state=text(f.get("if_state")),
        if_version=text(f.get("if_version")),
        trace=text(f.get("trace")),
        once=text(f.get("once")),
        origin=text(f.get("origin")),
        unfit=_unfit(known, part, f),
    )


def _unfit(known: Known, part: PartitionKeys, f: dict[str, bytes]) -> str:
    """Why the letter's command cannot be queued again; empty if it can."""
    anew = "send the command anew"
    if not (f.get("id") and f.get("key") and f.get("transition")):
        return f"it was no command ({text(f.get('reason'))})"
    if "args_cut" in f:
        return f"its arguments were cut by a former version of statemq; {anew}"
    if "args_garbled" in f:
        return f"its arguments are {text(f.get('args_wrong'))}; {anew}"
    if not f.get("args"):  # an entry that was forged, or written by hand
        return f"it holds no arguments ({text(f.get('reason'))}); {anew}"
    limits = {"id": LIMITS.id, "origin": LIMITS.field, "key": LIMITS.key, "transition": LIMITS.name, "args": LIMITS.arguments}
    if long := next((name for name, value in f.items() if name in limits and len(value) > limits[name]), ""):
        return f"its {long} has {len(f[long])} bytes, more than the limit of {limits[long]}; {anew}"
    if wrong := _wrong_with(f["args"]):
        return f"its arguments are {wrong}; {anew}"
    home = partition_of(text(f["key"]), known.config.partitions)
    return "" if home == part.number else f"its key belongs to partition {home}; {anew}"


async def retry(
    router: Router, known: Known, letters: list[str] | None, by: str, *, reply: str = "", durability: Durability | None = None
) -> AsyncGenerator[str, None]:
    """The letters' commands are queued again under new ids, each of which is given when its letter is gone.

    They keep the identity of the command that failed first, by which the outside world knows what it has done already.

    Without ``letters`` all that can be. What cannot be stays; if such a letter is named, nothing is queued. Two who retry a letter at
    once queue its command once.
    """
    if letters is not None:
        for name in dict.fromkeys(letters):
            await _named(router, known, name)
        for name in dict.fromkeys(letters):  # read anew: all of them may be more than fits into memory
            yield await _queue(router, known, *await _named(router, known, name), by, reply, durability)
        return
    for part in known.partitions:
        async for letter in _letters(router, known, part, until=await _last(router, part)):
            if not letter.unfit and (id := await _queue(router, known, part, letter, by, reply, durability, or_gone=True)):
                yield id


async def _named(router: Router, known: Known, name: str) -> tuple[PartitionKeys, DeadLetter]:
    """The letter, if it can be retried."""
    part, entry = _place(known, name)
    async for letter in _letters(router, known, part, since=entry, until=entry):
        if letter.unfit:
            raise UsageError(f"dead letter {letter.letter} cannot be retried: {letter.unfit}")
        return part, letter
    raise _gone(known, name)


async def _last(router: Router, part: PartitionKeys) -> str:
    """The youngest letter's entry id: what fails again meanwhile is a new letter, for another time."""
    found = await router.call(part.lease, "XREVRANGE", part.failed, "+", "-", "COUNT", 1)
    return text(found[0][0]) if found else "-"


async def _queue(
    router: Router,
    known: Known,
    part: PartitionKeys,
    letter: DeadLetter,
    by: str,
    reply: str,
    durability: Durability | None,
    *,
    or_gone: bool = False,
) -> str:
    """The new command's id; with ``or_gone`` an empty text where there is nothing to retry any more."""
    await note(router, part.namespace, known.name, "retry", [letter.letter], by)
    seconds, micros = await router.call(part.lease, "TIME")
    id = command_id(known.name, part.number, int(seconds) * 1000 + int(micros) // 1000)
    has_once = letter.once.startswith(part.once_)
    keys = [part.lease, part.commands, part.accepted, part.failed, part.outcomes_, letter.once if has_once else part.once(letter.key, "")]
    entry = letter.letter.partition("/")[2]
    while True:
        since = stand(router, part)
        sent = router.run("retry", keys, known.config.incarnation, LIMITS.backlog, entry, id, reply, "1" if has_once else "0")
        word, _, other = text(await permitted("retry", sent)).partition(" ")
        if word != "queued":
            break
        if durability is None or await secured(router, part, durability, since):
            return id
    if or_gone and word in ("gone", "taken"):
        return ""
    raise _refusal(known, part, letter, word, other)


def _refusal(known: Known, part: PartitionKeys, letter: DeadLetter, word: str, other: str) -> StatemqError:
    if word == "gone":
        return _gone(known, letter.letter)
    if word == "taken":
        why = f"its idempotency key is command {other}'s by now, so it may have been done; look at that, then discard this dead letter"
        return UsageError(f"dead letter {letter.letter} cannot be retried: {why}")
    if word == "full":
        return BacklogFull(known.name, part.number, LIMITS.backlog)
    if word == "exhausted":
        return StreamExhausted(known.name, part.number)
    if word == "lost":
        return NamespaceLost(
            f"partition {part.number} of {known.name} was wiped or replaced (namespace {part.namespace}); nothing was queued"
        )
    return ServerError(f"retry answered {word!r}, which this version does not know")


def _gone(known: Known, letter: str) -> UsageError:
    return UsageError(f"there is no dead letter {letter} of {known.name} (any more)")


async def discard(router: Router, known: Known, letters: list[str] | None, by: str) -> AsyncGenerator[int, None]:
    """The letters are gone; of each page of them is given how many there were."""
    named = None if letters is None else [_place(known, name) for name in letters]
    await ask(router, known.partitions[0].namespace, known.name, "discard")
    if named is not None:
        for part, entry in named:
            yield await _discard(router, known, part, [entry], by)
        return
    for part in known.partitions:
        async for page in stream_pages(router, part.lease, part.failed, until=await _last(router, part), most=PAGE):
            yield await _discard(router, known, part, [text(entry) for entry, _ in page], by)


async def _discard(router: Router, known: Known, part: PartitionKeys, entries: list[str], by: str) -> int:
    await write(router, part.namespace, known.name, "discard", [f"{part.number}/{entry}" for entry in entries], by)
    gone: int = await permitted("discard", router.call(part.lease, "XDEL", part.failed, *entries))
    return gone


def _place(known: Known, letter: str) -> tuple[PartitionKeys, str]:
    """Where the letter lies, if it can be one's name."""
    p, _, entry = letter.partition("/")
    ms, _, n = entry.partition("-")
    if not (p.isdecimal() and ms.isdecimal() and n.isdecimal() and int(p) < len(known.partitions)):
        raise UsageError(f'"{letter}" names no dead letter of {known.name}; one looks like 7/1700000000000-0')
    return known.partitions[int(p)], entry
