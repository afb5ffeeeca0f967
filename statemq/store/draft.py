"""A command before it is accepted, and what the append script's words mean for it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Protocol

import msgspec

from statemq.config import LIMITS, Share
from statemq.errors import BacklogFull, IdempotencyConflict, Pending, Refused, ServerError, StatemqError, StreamExhausted, TooLarge
from statemq.keys import PartitionKeys
from statemq.records import Outcome
from statemq.store.wire import ReplyError

_outcome = msgspec.json.Decoder(Outcome).decode

ACCEPTED = b"accepted"

SHARE: ContextVar[Share | None] = ContextVar("SHARE", default=None)
"""On whose behalf commands are sent in this context, and what that caller may hold of a partition. None: as much as there is."""

_LIMIT_OF = {
    "key": LIMITS.key,
    "arguments": LIMITS.arguments,
    "id": LIMITS.id,
    "transition": LIMITS.name,
    "delay": LIMITS.delay_ms,
    "digest": LIMITS.name,
}


class Appended(msgspec.Struct, frozen=True):
    """An answer: the command's id, its outcome if it has ended already, and whether it is an earlier request's command."""

    id: str
    outcome: Outcome | None = None
    attached: bool = False


class Draft(msgspec.Struct, eq=False):
    """A command before it is accepted. Its id is made when it is first sent, so that waiting for Redis does not age it (P26)."""

    keys: PartitionKeys
    key: str
    transition: str
    args: bytes
    extras: list[str]
    """Further stream fields: name, value, …"""
    partitions: int
    """How many the machine had when the draft was made."""
    delay_ms: int | None = None
    idempotency_key: str = ""
    digest: str = ""
    """Of transition and arguments as they are sent; set with an idempotency key."""
    meaning: str = ""
    """Of what they mean; as ``digest`` unless given."""
    share: Share | None = None
    """What its caller may hold of the partition; None: all of it."""
    conditions: str = ""
    """Of when it may run: ``if_state``, ``if_version`` and delay. A former version's client does not say."""
    id: str = ""
    retimed: bool = False

    @property
    def size(self) -> int:
        return len(self.key) + len(self.args) + sum(map(len, self.extras)) + len(self.idempotency_key) + 200


class Answer(Protocol):
    """Who is told what became of a draft: a future, or one that goes on from there."""

    def done(self) -> bool: ...

    def set_result(self, appended: Appended, /) -> None: ...

    def set_exception(self, error: BaseException, /) -> None: ...


def settle(draft: Draft, answer: Answer, text: bytes) -> None:
    """The script's word as a result or an error."""
    if answer.done():
        return
    if text == ACCEPTED:  # nearly always
        answer.set_result(Appended(draft.id))
        return
    word, _, rest = text.decode().partition(" ")
    machine, partition = draft.keys.machine, draft.keys.number
    if word in ("delayed", "known"):
        answer.set_result(Appended(draft.id))
    elif word == "ended":
        outcome = _outcome(rest)
        answer.set_result(Appended(outcome.id, outcome, attached=outcome.id != draft.id))
    elif word == "attached":
        answer.set_result(Appended(rest, attached=True))
    elif word == "conflict":
        fail(answer, IdempotencyConflict(draft.idempotency_key, rest))
    elif word == "full":
        fail(answer, BacklogFull(machine, partition, LIMITS.backlog))
    elif word == "share" and draft.share is not None:
        fail(answer, BacklogFull(machine, partition, draft.share.commands, draft.share.bytes))
    elif word == "exhausted":
        fail(answer, StreamExhausted(machine, partition))
    elif word == "large":
        what, size = rest.split()
        fail(answer, TooLarge(what, int(size), _LIMIT_OF.get(what, LIMITS.field), "ms" if what == "delay" else "bytes"))
    elif word == "late":
        fail(answer, unsure(draft, "was sent again too late to tell whether it had been accepted before; look at the instance's history"))
    else:
        fail(answer, ServerError(f"append answered {text.decode()!r}, which this version does not know"))


def unsure(draft: Draft, why: str) -> Pending:
    """The command may have been accepted: its sender can ask for it by its id."""
    return Pending(f"command {draft.id} {why}", id=draft.id, machine=draft.keys.machine, key=draft.key, transition=draft.transition)


def fail(answer: Answer, error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        if isinstance(answer, asyncio.Future):
            answer.exception()  # seen: who sent it may have given up


def said(error: Exception, keys: PartitionKeys) -> StatemqError:
    """As its sender is told."""
    if not isinstance(error, ReplyError):
        return error if isinstance(error, StatemqError) else ServerError(f"append failed: {error!r}")
    if error.word == "OOM":
        return Refused("Redis has used up its memory (maxmemory) and accepts no new commands; what is queued still runs and makes room")
    return ServerError(f"Redis refused an append to partition {keys.number} of {keys.machine}: {error.message}")
