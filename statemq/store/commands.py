"""Commands as they lie in a stream or an inbox, decoded once; what is no command is told apart here (P27)."""

from __future__ import annotations

from typing import Any

import msgspec

from statemq.config import LIMITS
from statemq.keys import PartitionKeys, partition_of

LOOK = "@look"

_TEXTS = ("reply", "once", "if_state", "if_version", "trace", "chain", "origin")

_KNOWN = frozenset({"id", "key", "transition", "args", *_TEXTS})

MORE = 16
"""So many fields of an entry that this version does not know are carried along, each of at most ``LIMITS.field`` bytes: a sender of a newer
version may have added them for workers of its own version. The rest is left out, and so is what is no text."""


class Queued(msgspec.Struct):
    """An accepted command as the worker holds it. ``entry`` orders it; ``parked``: it lies in the inbox, not in the stream."""

    entry: str
    id: str
    key: str
    transition: str
    args: bytes
    reply: str = ""
    once: str = ""
    if_state: str = ""
    if_version: str = ""
    trace: str = ""
    chain: str = ""
    origin: str = ""
    """The first command whose work this is: of a dead letter that was retried, the one that failed first."""
    more: dict[str, str] = {}
    """Fields that this version does not know."""
    parked: bool = False
    crashes: int = 0
    """How often its owner died while it was in progress (P14), since something of it was recorded."""
    crowd: int = 0
    """So many suspects may run together, this one included; 0: any number."""
    fell: int = 0
    """How often its owner died while it was the only suspect, but had company."""
    journalled: bool = False
    """It may have a journal."""
    peeked: bool = False
    """``journal`` holds what was recorded."""
    journal: dict[str, bytes] = {}
    attempts: int = 0
    """Attempts that have failed."""
    claimed: bool = False
    """It is pending in the group."""
    gone: bool = False
    """Its start was refused: it is not accepted any more."""
    timed: bool = False
    """It may have a timer."""
    size: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """Entry ids as numbers: they order a key's commands wherever they lie (P8)."""
        return entry_order(self.entry)

    @property
    def identity(self) -> str:
        """What its step keys, uuids and chance are made of: a retry of a dead letter has those of the command that failed."""
        return self.origin or self.id


def entry_order(entry: str) -> tuple[int, int]:
    ms, _, n = entry.partition("-")
    return int(ms), int(n or 0)


def was_checked(c: Queued) -> bool:
    """Its sender checked the arguments, by the class or its schemas: a client does, who adds an entry by hand does not."""
    return "-" not in c.id.rpartition(".")[2] and c.args[:1] == b"{"


class Garbage(msgspec.Struct):
    """A stream entry that cannot be a command, and why."""

    entry: str
    reason: str
    fields: dict[str, str]
    id: str = ""
    key: str = ""
    transition: str = ""
    size: int = 0


class Look(msgspec.Struct, frozen=True):
    """Somebody changed something about a key (or, with an empty key, about the timers)."""

    entry: str
    key: str


class ByHand(msgspec.Struct, frozen=True):
    """A well-formed entry without an id: to be adopted here, or forwarded to ``partition``."""

    command: Queued
    partition: int


def read_entry(
    raw_entry: bytes, raw: list[bytes], keys: PartitionKeys, partitions: int, channel_prefix: str
) -> Queued | Garbage | Look | ByHand:
    """What a stream entry is. Most lie as append wrote them: those are read without a search."""
    if raw[::2] == _AS_APPENDED:
        _, raw_id, _, raw_key, _, raw_transition, _, args, _, raw_reply = raw
        size = len(raw_key) + len(args)
        fits = size + len(raw_id) + len(raw_reply) <= SMALL and len(raw_transition) <= LIMITS.name
        if raw_id and raw_key and raw_transition and args and (fits or _sizes_fit(raw)):
            try:
                id, key, transition, reply = raw_id.decode(), raw_key.decode(), raw_transition.decode(), raw_reply.decode()
            except UnicodeDecodeError:
                return _read_any(raw_entry, raw, keys, partitions, channel_prefix)
            if transition != LOOK and id.split() == [id] and reply.startswith(channel_prefix):
                return Queued(raw_entry.decode(), id, key, transition, args, reply, size=size + 200)
    return _read_any(raw_entry, raw, keys, partitions, channel_prefix)


_AS_APPENDED = [b"id", b"key", b"transition", b"args", b"reply"]

SMALL = min(LIMITS.id, LIMITS.key, LIMITS.arguments, LIMITS.field)
"""Fields other than the transition's name that together have no more bytes than any limit allows need not be measured one by one."""


def _sizes_fit(raw: list[bytes]) -> bool:
    return (
        len(raw[1]) <= LIMITS.id
        and len(raw[3]) <= LIMITS.key
        and len(raw[5]) <= LIMITS.name
        and len(raw[7]) <= LIMITS.arguments
        and len(raw[9]) <= LIMITS.field
    )


def _read_any(
    raw_entry: bytes, raw: list[bytes], keys: PartitionKeys, partitions: int, channel_prefix: str
) -> Queued | Garbage | Look | ByHand:
    entry = raw_entry.decode()
    try:
        f = {raw[i].decode(): raw[i + 1] for i in range(0, len(raw), 2)}
        key = f["key"].decode() if "key" in f else ""
        transition = f["transition"].decode() if "transition" in f else ""
        id = f["id"].decode() if "id" in f else ""
    except UnicodeDecodeError:
        return Garbage(
            entry,
            "the entry is not UTF-8 text",
            {k.decode(errors="replace"): v.decode(errors="replace") for k, v in zip(raw[::2], raw[1::2], strict=True)},
        )
    if transition == LOOK:
        return Look(entry, key)
    reason = ""
    if not key:
        reason = 'the entry has no field "key"'
    elif not transition:
        reason = 'the entry has no field "transition"'
    elif len(f["key"]) > LIMITS.key:
        reason = f"the key has {len(f['key'])} bytes; the limit is {LIMITS.key}"
    elif len(f.get("args", b"")) > LIMITS.arguments:
        reason = f"the arguments have {len(f['args'])} bytes; the limit is {LIMITS.arguments}"
    elif len(f["transition"]) > LIMITS.name:
        reason = f"the transition has {len(f['transition'])} bytes; the limit is {LIMITS.name}"
    elif id and (len(f["id"]) > LIMITS.id or id.split() != [id]):
        reason = f"the id has {len(f['id'])} bytes; the limit is {LIMITS.id}" if len(f["id"]) > LIMITS.id else "the id has white space"
    elif long := next((name for name in _TEXTS if len(f.get(name, b"")) > LIMITS.field), ""):
        reason = f"the field {long} has {len(f[long])} bytes; the limit is {LIMITS.field}"
    if reason:
        shown = {k[:64]: v[: LIMITS.buried_field].decode(errors="replace") for k, v in list(f.items())[:32]}
        # an id that somebody had accepted is answered
        return Garbage(entry, reason, shown, id if len(f.get("id", b"")) <= LIMITS.id else "", key[: LIMITS.key], transition[: LIMITS.name])
    get = f.get
    try:
        reply, once = get("reply", b"").decode(), get("once", b"").decode()
        if_state, if_version = get("if_state", b"").decode(), get("if_version", b"").decode()
        trace, chain, origin = get("trace", b"").decode(), get("chain", b"").decode(), get("origin", b"").decode()
    except UnicodeDecodeError:
        return Garbage(entry, "the entry is not UTF-8 text", {"key": key, "transition": transition}, id, key, transition)
    more = _carried({name: _text(raw) for name, raw in f.items() if name not in _KNOWN})
    command = Queued(
        entry,
        id,
        key,
        transition,
        get("args") or b"{}",
        # P33: only to this namespace's reply channels, only to this partition's idempotency records
        reply=reply if reply.startswith(channel_prefix) else "",
        once=once if once.startswith(keys.once_) else "",
        if_state=if_state,
        if_version=if_version,
        trace=trace,
        chain=chain,
        origin=origin,
        more=more,
        size=len(f["key"]) + len(get("args", b"")) + sum(len(name) + len(text) for name, text in more.items()) + 200,
    )
    if not id:
        home = partition_of(key, partitions)
        command.id = f"{keys.machine}.{home}.{'' if home == keys.number else f'{keys.number}-'}{entry}"
        return ByHand(command, home)
    return command


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _carried(unknown: dict[str, Any]) -> dict[str, str]:
    fit = {
        name: value
        for name, value in unknown.items()
        if isinstance(value, str) and len(name.encode()) <= LIMITS.name and len(value.encode()) <= LIMITS.field
    }
    return dict(list(fit.items())[:MORE])


class _Element(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    key: str
    transition: str
    args: str
    reply: str = ""
    once: str = ""
    if_state: str = ""
    if_version: str = ""
    trace: str = ""
    chain: str = ""
    origin: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Element).decode


def to_element(c: Queued) -> bytes:
    """The inbox element: entry id, command id, and the rest as JSON."""
    texts = [getattr(c, name) for name in _TEXTS]
    body = _Element(c.key, c.transition, c.args.decode(errors="replace"), *texts)
    json = _encode(c.more | msgspec.to_builtins(body) if c.more else body)
    return b"%b %b %b" % (c.entry.encode(), c.id.encode(), json)


def _read_body(body: bytes) -> tuple[_Element, dict[str, str]]:
    """What an element holds, and the fields of it that this version does not know."""
    try:
        return _decode(body), {}
    except msgspec.ValidationError:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        known = {name: value for name, value in fields.items() if name in _KNOWN}
        return msgspec.convert(known, _Element), _carried({name: value for name, value in fields.items() if name not in _KNOWN})


def from_element(raw: bytes) -> Queued | None:
    """The command in an inbox element; None if it is none (somebody pushed it by hand)."""
    try:
        entry, id, body = raw.split(b" ", 2)
        e, more = _read_body(body)
        ms, _, n = entry.partition(b"-")
        if not (ms.isdigit() and n.isdigit()):
            return None
    except (ValueError, msgspec.MsgspecError):
        return None
    return Queued(
        entry.decode(),
        id.decode(),
        e.key,
        e.transition,
        e.args.encode(),
        e.reply,
        e.once,
        e.if_state,
        e.if_version,
        e.trace,
        e.chain,
        e.origin,
        more,
        parked=True,
        size=len(raw) + 100,
        journalled=True,
        timed=True,
    )


def flat_fields(c: Queued) -> list[Any]:
    """The fields of a stream entry for this command (forwarding)."""
    fields: list[Any] = ["id", c.id, "key", c.key, "transition", c.transition, "args", c.args]
    for name in _TEXTS:
        if value := getattr(c, name):
            fields += [name, value]
    for name, value in c.more.items():
        fields += [name, value]
    return fields
