"""Everything statemq raises.

    StatemqError
    ├── DeclarationError            a machine class is wrong; lists every problem
    ├── UsageError                  what was asked cannot be: fix the call
    │   ├── UnknownMachine
    │   ├── UnknownTransition       also an unknown query or state
    │   ├── InvalidArguments
    │   ├── InvalidKey
    │   ├── TooLarge
    │   ├── IdempotencyConflict
    │   └── PartitionMismatch       this namespace has the machine with another partition count
    ├── Refused                     not accepted now; nothing was queued
    │   ├── BacklogFull
    │   └── StreamExhausted
    ├── CommandError                how a command ended, with its fields
    │   ├── Rejected  Failed  Cancelled
    │   ├── Pending                 (also a TimeoutError) not ended yet; ask again by its id
    │   └── Unknown                 nothing is known of that id (any more)
    ├── ServerError                 Redis
    │   ├── RedisAway               not reachable now
    │   ├── UnsupportedServer       too old, evicting, or forbids what statemq needs
    │   ├── NamespaceLost           the namespace was wiped or replaced
    │   └── SchemaTooNew
    ├── StepFailed                  a step used up its retries
    └── StepConflict                a journal record was made for other arguments, or another type

What a transition raises to end itself: ``Reject`` and ``Fail`` (no error of statemq's, so they
share no root with the above).

Never tried again, when a transition raises them: Reject, Fail, StepFailed, StepConflict, TooLarge, and Rejected, Failed and Cancelled of
another command. Whatever else it raises is, as its ``retry`` says.

In an ExceptionGroup, as ``asyncio.TaskGroup`` raises it, each means what it means alone. Of several, what fails the command
decides over ``Reject``, and ``Reject`` over an error that would be tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def _made(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An error as it was, its fields still to come: its ``__init__`` takes the fields, not the text that it made of them."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class _Whole(Exception):
    """An error that survives ``pickle`` and ``copy`` with all its fields: it may cross to another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (type(self), self.args), dict(vars(self))


class StatemqError(_Whole):
    """The root of what statemq raises."""

    code = "error"


class DeclarationError(StatemqError):
    """A machine class cannot work; ``problems`` has one sentence for each fault. ``where``: file and line, if no traceback leads there."""

    code = "declaration"

    def __init__(self, machine: str, problems: list[str], where: str = "") -> None:
        self.machine, self.problems, self.where = machine, problems, where
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"machine {machine} is declared wrong:{lines}")


class UsageError(StatemqError):
    """The call cannot be carried out as it stands."""

    code = "usage"


class UnknownMachine(UsageError):
    code = "unknown_machine"

    def __init__(self, machine: str, namespace: str, known: list[str]) -> None:
        self.machine, self.namespace, self.known = machine, namespace, known
        names = ", ".join(sorted(known)) or "none"
        super().__init__(f'no process has declared "{machine}" in namespace {namespace} yet; known: {names}')


class UnknownTransition(UsageError):
    code = "unknown_transition"

    def __init__(self, machine: str, name: str, known: list[str], kind: str = "transition") -> None:
        self.machine, self.name, self.known = machine, name, known
        super().__init__(f'{machine} has no {kind} "{name}"; it has: {", ".join(known) or "none"}')


class InvalidArguments(UsageError):
    code = "arguments"

    def __init__(self, machine: str, transition: str, why: str) -> None:
        self.machine, self.transition, self.why = machine, transition, why
        super().__init__(f"{machine}.{transition}: {why}")


class InvalidKey(UsageError):
    code = "key"


class TooLarge(UsageError):
    code = "too_large"

    def __init__(self, what: str, size: int, limit: int, unit: str = "bytes") -> None:
        self.what, self.size, self.limit = what, size, limit
        super().__init__(f"{what} has {size} {unit}; the limit is {limit}")


class IdempotencyConflict(UsageError):
    code = "idempotency_conflict"

    def __init__(self, key: str, id: str) -> None:
        self.key, self.id = key, id
        super().__init__(f'idempotency key "{key}" was used for another request (command {id})')


class PartitionMismatch(UsageError):
    code = "partition_mismatch"

    def __init__(self, machine: str, declared: int, stored: int) -> None:
        self.machine, self.declared, self.stored = machine, declared, stored
        super().__init__(f"{machine} is declared with {declared} partitions but was created with {stored}; declare partitions={stored}")


class Refused(StatemqError):
    """Not accepted now; nothing was queued; the same call may pass later."""

    code = "refused"


class BacklogFull(Refused):
    code = "backlog_full"

    def __init__(self, machine: str, partition: int, limit: int, bytes: int | None = None) -> None:
        self.machine, self.partition, self.limit = machine, partition, limit
        what = f"{machine} has {limit} commands"
        if bytes is not None:  # a share of one caller, not all there is
            what = f"{machine} has as much of this caller as it may ({limit} commands or {bytes} bytes)"
        super().__init__(f"{what} waiting in partition {partition}; try again when it has drained")


class StreamExhausted(Refused):
    code = "stream_exhausted"

    def __init__(self, machine: str, partition: int) -> None:
        self.machine, self.partition = machine, partition
        super().__init__(
            f"the command stream of {machine}, partition {partition}, has used up its entry ids (an entry of the far future "
            f"was added by hand); let it drain, then: statemq doctor {machine} --repair"
        )


class CommandError(StatemqError):
    """How a command ended, or that it has not.

    ``id machine key transition state reason code`` are strings; those not known are empty.
    """

    code = "command"

    def __init__(
        self, reason: str, *, id: str = "", machine: str = "", key: str = "", transition: str = "", state: str = "", code: str = ""
    ) -> None:
        self.reason, self.id, self.machine, self.key = reason, id, machine, key
        self.transition, self.state = transition, state
        self.code = code or type(self).code
        super().__init__(reason)


class Rejected(CommandError):
    """The machine said no; nothing changed."""

    code = "rejected"


class Failed(CommandError):
    """The command failed for good; the instance's state did not change."""

    code = "failed"


class Cancelled(CommandError):
    code = "cancelled"


class Pending(CommandError, TimeoutError):
    """The command has not ended, or it is not known how; it goes on. Ask again by ``id``, after ``send_many`` by each of ``ids``."""

    code = "pending"

    def __init__(self, reason: str, *, ids: Iterable[str] = (), **fields: str) -> None:
        super().__init__(reason, **fields)
        self.ids = tuple(ids) or ((self.id,) if self.id else ())


class Unknown(CommandError):
    """Nothing is known of this id: never accepted, or ended longer ago than outcomes are kept."""

    code = "unknown"


class ServerError(StatemqError):
    code = "server"


class PortTaken(StatemqError):
    """Another program listens there; it may go away."""

    code = "port_taken"


class RedisAway(ServerError):
    code = "redis_away"


class UnsupportedServer(ServerError):
    code = "unsupported_server"


class NamespaceLost(ServerError):
    code = "namespace_lost"


class SchemaTooNew(ServerError):
    code = "schema_too_new"


class StepFailed(StatemqError):
    """A step used up its retries; ``step``, ``type`` and ``reason`` are those of its last error, ``code`` too if that was a Fail's own."""

    code = "step_failed"

    def __init__(self, step: str, type: str, reason: str, code: str = "") -> None:
        self.step, self.type, self.reason, self.code = step, type, reason, code or StepFailed.code
        super().__init__(f"step {step} failed: {type}: {reason}" if type else f"step {step} failed: {reason}")


class StepConflict(StatemqError):
    """A step's record was made for other arguments, or for another type, than those it is asked with now."""

    code = "step_conflict"

    def __init__(self, step: str, why: str = "was recorded for other arguments; give concurrent steps their own names") -> None:
        self.step = step
        super().__init__(f"step {step} {why}")

    @classmethod
    def changed(cls, step: str, before: str) -> StepConflict:
        """Of a record that an earlier run of the body made; ``before``: the error that made it run again, if one did, is the cause."""
        why = "its arguments are not the same at each attempt: take what changes from ctx.now(), ctx.random, ctx.uuid() or another step"
        after = f" (the attempt before failed: {before})" if before else ""
        conflict = cls(step, f"was recorded for other arguments; give concurrent steps their own names; {why}{after}")
        if before:
            conflict.__cause__ = RuntimeError(f"the attempt before failed: {before}")
        return conflict


def unicode(text: str) -> str:
    """The text with a question mark in place of each lone surrogate, which no JSON and no Redis call can carry."""
    return text.encode(errors="replace").decode()


class Reject(_Whole):
    """Raise in a transition or guard to refuse the command: nothing changes, no retry."""

    def __init__(self, reason: str = "rejected", code: str = "rejected") -> None:
        self.reason, self.code = unicode(str(reason)), unicode(str(code))
        super().__init__(self.reason)


class Fail(_Whole):
    """Raise in a transition to fail the command for good, in a step to end its retries."""

    def __init__(self, reason: str = "failed", code: str = "failed") -> None:
        self.reason, self.code = unicode(str(reason)), unicode(str(code))
        super().__init__(self.reason)


FINAL = (Fail, StepFailed, StepConflict, TooLarge, Rejected, Failed, Cancelled)
"""What fails a command at once when its transition raises it; Reject refuses it at once. Whatever else it raises is tried again.
docs/GUIDE.md lists them for users."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, however nested, in their order; the error itself if it is none."""
    rest = [error]
    while rest:
        one = rest.pop()
        if isinstance(one, BaseExceptionGroup) and not isinstance(one, (Reject, *FINAL)):
            rest.extend(reversed(one.exceptions))
        else:
            yield one


def deciding(error: BaseException) -> BaseException:
    """The error that says how its command ends: in a group the first that fails it at once, else the first Reject. The error
    itself where it is no group, or where nothing in it ends a command."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    ends = [one for one in leaves(error) if isinstance(one, (Reject, *FINAL))]
    return next((one for one in ends if isinstance(one, FINAL)), ends[0] if ends else error)
