"""What goes wrong, as ``application/problem+json`` (RFC 9457): a status, a sentence and a stable ``error`` word."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from statemq.errors import (
    BacklogFull,
    CommandError,
    IdempotencyConflict,
    RedisAway,
    ServerError,
    StatemqError,
    StreamExhausted,
    UnknownMachine,
    UnknownTransition,
    UsageError,
)
from statemq.records import Outcome

PROBLEM_JSON = "application/problem+json"

ERRORS: dict[str, tuple[int, str]] = {
    "arguments": (400, "The arguments do not fit the transition or query."),
    "body": (400, "The body is no JSON object."),
    "key": (400, "The instance's key is empty, too long or no UTF-8."),
    "parameter": (400, "A query parameter or header is unknown or cannot be read."),
    "usage": (400, "The request cannot be carried out as it stands."),
    "framing": (400, "Where the request ends can be read in two ways."),
    "token": (401, "No valid bearer token."),
    "role": (403, "The token may not do this."),
    "origin": (403, "A web page of another origin asks to change something."),
    "not_found": (404, "There is no such path."),
    "unknown_machine": (404, "No process has declared this machine yet."),
    "unknown_transition": (404, "The machine has no such transition or query."),
    "unknown": (404, "Nothing is known of this command id (any more)."),
    "method": (405, "The path does not take this method."),
    "slow": (408, "The body did not arrive in time."),
    "rejected": (409, "The machine said no; nothing changed."),
    "cancelled": (409, "The command was cancelled."),
    "ended": (409, "The command has ended already."),
    "version": (412, "The instance has another version than If-Match names."),
    "too_large": (413, "The body, key or another field is too large."),
    "content_type": (415, "A body must be sent as application/json."),
    "host": (421, "This server does not answer to that Host."),
    "idempotency_conflict": (422, "The idempotency key was used for another request."),
    "headers": (431, "The headers are too large."),
    "backlog_full": (429, "Too many commands wait in this partition; nothing was queued."),
    "failed": (500, "The command failed for good; the instance's state did not change."),
    "partition_mismatch": (500, "The machine was created with another number of partitions."),
    "internal": (500, "A fault of the server; its log says more."),
    "stream_exhausted": (503, "The partition's stream has used up its entry ids; nothing was queued."),
    "not_ready": (503, "This process cannot do its work now."),
    "redis_away": (503, "Redis does not answer now; nothing was queued."),
    "unsupported_server": (503, "The Redis server lacks what statemq needs."),
    "namespace_lost": (503, "The namespace was wiped or replaced."),
    "schema_too_new": (503, "The data in Redis is of a later version of statemq."),
    "server": (503, "Redis refused."),
    "stopping": (503, "This process is ending; nothing was queued."),
    "pending": (504, "The command has not ended yet, or may have been queued. Ask again by its id."),
}
"""``error`` → status and meaning. Words stay for 1.x; new ones may come."""

RETRY_AFTER_S = {
    "redis_away": 1,
    "not_ready": 1,
    "backlog_full": 1,
    "stream_exhausted": 60,
    "namespace_lost": 60,
    "server": 1,
    "stopping": 1,
}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The body of every answer that is no success. Fields that are not known are left out."""

    title: str
    status: int
    error: str
    """One of the documented words; programs decide by it."""
    detail: str
    """A sentence for people."""
    id: str = ""
    """The command's id, once it has one."""
    machine: str = ""
    key: str = ""
    transition: str = ""
    state: str = ""
    """The state in which the command was rejected or failed."""
    code: str = ""
    """The machine's own word: ``Reject("…", code="funds")``."""
    allowed: list[str] = []
    """Rejected commands: what the state allows now."""
    known: list[str] = []
    """Unknown names: those that are known."""


class Refusal(Exception):
    """Ends a request with a problem."""

    def __init__(self, error: str, detail: str, *, headers: dict[str, str] | None = None, **fields: Any) -> None:
        status = ERRORS[error][0]
        self.problem = Problem(title=HTTPStatus(status).phrase, status=status, error=error, detail=detail, **fields)
        self.headers = headers or {}
        if error in RETRY_AFTER_S:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_S[error]))
        super().__init__(detail)


def refusal_of(error: StatemqError, id: str = "") -> Refusal:
    """The answer for what the client raised. ``id``: of the command that was asked for, or may have been queued."""
    word = type(error).code
    if word not in ERRORS:
        word = "server" if isinstance(error, ServerError) else "usage" if isinstance(error, UsageError) else "internal"
    fields: dict[str, Any] = {"id": id}
    if isinstance(error, CommandError):
        fields = {name: getattr(error, name) for name in ("id", "machine", "key", "transition", "state")}
        fields["code"] = "" if error.code == word else error.code
        fields["id"] = error.id or id
    elif isinstance(error, UnknownMachine | UnknownTransition):
        fields |= {"machine": error.machine, "known": sorted(error.known)}
    elif isinstance(error, IdempotencyConflict):
        fields = {"id": error.id}
    elif isinstance(error, BacklogFull | StreamExhausted):
        fields |= {"machine": error.machine}
    detail = str(error)
    if isinstance(error, RedisAway):
        detail = "Redis does not answer now; " + ("ask for the command by its id" if id else "try again")
    return Refusal(word, detail, **fields)


def refusal_of_outcome(machine: str, outcome: Outcome) -> Refusal:
    """The answer for a command that did not complete."""
    word = outcome.outcome
    if word == "rejected" and outcome.code == "if_version":
        word = "version"
    return Refusal(
        word,
        outcome.reason or f"the command was {outcome.outcome}",
        id=outcome.id,
        machine=machine,
        key=outcome.key,
        transition=outcome.transition,
        state=outcome.state,
        code="" if outcome.code in (outcome.outcome, "if_version") else outcome.code,
        allowed=outcome.allowed,
    )
