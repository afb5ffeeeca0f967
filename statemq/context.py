"""What a transition's body is given: its durable operations.

Pure: it knows no Redis. An ``Engine`` behind it (the worker's attempt, or a test's) does the work.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, Protocol, TypeVar, TypeVarTuple, overload

from statemq.codec import duration_ms, time_limit_ms
from statemq.errors import Fail, UsageError
from statemq.retry import Retry

R = TypeVar("R")
A = TypeVarTuple("A")

Duration = float | timedelta | str
"""Seconds, a timedelta, or a text such as ``30s`` (``ms s m h d``)."""


CENTURY_MS = 36_525 * 24 * 3600 * 1000


class InvalidCall(Fail, UsageError):
    """An operation of ``ctx`` was asked for what cannot be: the command fails for good, since each attempt asks for the same."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "usage")


class Engine(Protocol):
    """The durable operations as an attempt provides them."""

    def step(
        self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], retry: Retry | None, timeout_ms: int | None, returns: Any
    ) -> Awaitable[Any]: ...

    def sleep(self, ms: int, name: str = "") -> Awaitable[None]: ...

    def timeout(self, ms: int, name: str = "") -> AbstractAsyncContextManager[None]: ...

    def now_ms(self) -> int: ...

    def uuid(self, name: str = "") -> uuid.UUID: ...

    def random(self) -> random.Random: ...

    @property
    def logger(self) -> logging.LoggerAdapter[Any]: ...


class Context:
    """The running command, and what its body may do durably.

    ``key`` the instance's key; ``command_id`` the command; ``attempt`` 1 for the first. A retry of a dead letter is a command with an id of
    its own; step keys, uuids and ``random`` are those of the command that failed: use them, not ``command_id``, for what must be done once.
    """

    __slots__ = ("_engine", "_identity", "attempt", "command_id", "key")

    def __init__(self, engine: Engine, key: str, command_id: str, attempt: int, origin: str = "") -> None:
        self._engine = engine
        self.key, self.command_id, self.attempt = key, command_id, attempt
        self._identity = origin or command_id

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """Silent while recorded steps are passed again, so that a line is logged once."""
        return self._engine.logger

    @property
    def random(self) -> random.Random:
        """Gives the same numbers at each attempt; each branch has its own."""
        return self._engine.random()

    @overload
    def step(
        self,
        name: str,
        fn: Callable[[*A], Awaitable[R]],
        *args: *A,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        returns: Any = None,
    ) -> Awaitable[R]: ...
    @overload
    def step(
        self,
        name: str,
        fn: Callable[[*A], R],
        *args: *A,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        returns: Any = None,
    ) -> Awaitable[R]: ...
    def step(
        self,
        name: str,
        fn: Callable[[*A], Any],
        *args: *A,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        returns: Any = None,
    ) -> Awaitable[Any]:
        """Once awaited, ``fn(*args)`` has run and its outcome is recorded; a recorded step never runs again.

        ``fn`` is ``async def`` (runs here) or blocking (runs in a thread; a coroutine that it returns is awaited here). Its result
        goes through JSON as its type, the first time too: ``returns=``, or the class that ``fn`` is, or its return annotation. Without
        any, and where its type says Any, it has to be plain JSON. Repeats of a name are told apart in call order
        (``fetch``, ``fetch#2``); give concurrent steps their own names. ``timeout`` bounds each try (for a
        blocking function it stops the waiting, not the thread).
        Without ``retry`` an error fails the attempt; with it, the last error is recorded and raised.

        Raises StepFailed when the retries are used up, StepConflict when the record was made for other arguments or another type.
        """
        return self._engine.step(name, fn, args, retry, None if timeout is None else _ms(time_limit_ms, timeout, f"step {name}"), returns)

    def step_key(self, name: str) -> str:
        """``<command id>/<name>``: pass it to the outside world as the idempotency key of a step's call.

        It is the same at each attempt, and in each retry of a dead letter, where the id is that of the command that failed first.
        """
        return f"{self._identity}/{name}"

    def sleep(self, duration: Duration, *, name: str = "") -> Awaitable[None]:
        """Once awaited, this much time has passed since it was first reached, crashes and restarts included.

        At most 100 years. The next attempt finds it again by its branch and its number there; or by ``name``, which other sleeps of the
        branch do not change.
        """
        return self._engine.sleep(_ms(_up_to_a_century, duration, "sleep"), *_named(name))

    def timeout(self, duration: Duration, *, name: str = "") -> AbstractAsyncContextManager[None]:
        """``async with ctx.timeout("30m"): …`` ends the block with TimeoutError if it lasts longer, as ``asyncio.timeout`` does.

        Durable like a sleep: the deadline is recorded when the block is first reached, so crashes and restarts do not move it; a block
        that ended in time did so at each attempt, and one that did not, did not.
        """
        return self._engine.timeout(_ms(_up_to_a_century, duration, "timeout"), *_named(name))

    def now(self) -> datetime:
        """The time (UTC) of the latest thing recorded: the same at each attempt, so it may decide what is done."""
        return datetime.fromtimestamp(self._engine.now_ms() / 1000, UTC)

    def uuid(self, *, name: str = "") -> uuid.UUID:
        """A UUID that is new at each call and the same at each attempt, in each branch; ``name`` as for ``sleep``."""
        return self._engine.uuid(*_named(name))


def _taking_its_arguments(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The operation, which says so where it cannot be called with what it was given."""

    @wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # from within
            wrong = str(error).partition("() ")[2] or str(error)
            raise InvalidCall(f"ctx.{name}: {wrong}; write {HOW[name]}") from None

    return called


HOW = {
    "step": 'await ctx.step("name", function, *arguments)',
    "sleep": 'await ctx.sleep("30s")',
    "timeout": 'async with ctx.timeout("30m"):',
    "step_key": 'ctx.step_key("name")',
    "now": "ctx.now()",
    "uuid": "ctx.uuid()",
}
"""Each operation as it is written."""

for _name in HOW:
    setattr(Context, _name, _taking_its_arguments(_name, getattr(Context, _name)))


def _up_to_a_century(duration: Duration) -> int:
    ms = duration_ms(duration)
    if ms > CENTURY_MS:
        raise UsageError(f"a duration cannot be {duration}; give at most 100 years")
    return ms


def _ms(read: Callable[[Duration], int], duration: Duration, what: str) -> int:
    try:
        return read(duration)
    except UsageError as error:
        raise InvalidCall(f"{what}: {error}") from None


def _named(name: str) -> tuple[str, ...]:
    return (name,) if name else ()
