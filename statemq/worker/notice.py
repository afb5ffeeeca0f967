"""How the worker's loop tells attempts of the tasks and timers that their bodies make, whoever else makes tasks."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import sys
import weakref
from collections.abc import Callable, Coroutine, Set
from types import FrameType
from typing import Any, cast

from statemq.worker.branches import STANDING, WAIT_FOR, Branch, code_of
from statemq.worker.judge import describe
from statemq.worker.step import args_digest
from statemq.worker.waits import current_task

_AS_COMPLETED = asyncio.as_completed.__code__
_MAKERS = frozenset({WAIT_FOR, _AS_COMPLETED})


class Contained(Coroutine[Any, Any, Any]):
    """A branch's coroutine. A SystemExit of its own is an error like others: as that of a task it would end the loop, with all keys."""

    __slots__ = ("contained",)

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self.contained = coro

    def __getattr__(self, name: str) -> Any:
        return getattr(self.contained, name)

    def __await__(self) -> Any:
        return self.contained.__await__()

    def send(self, value: Any) -> Any:
        return self._go_on(self.contained.send, value)

    def throw(self, *error: Any) -> Any:
        return self._go_on(self.contained.throw, *error)

    def close(self) -> None:
        self.contained.close()

    def _go_on(self, go: Callable[..., Any], *what: Any) -> Any:
        try:
            return go(*what)
        except (SystemExit, KeyboardInterrupt) as error:
            raise RuntimeError(f"a branch raised {describe(error)}") from error


def _maker() -> FrameType:
    """Asyncio's function that has a task made, or who called that."""
    frame = sys._getframe(2)
    while (below := frame.f_back) is not None and frame.f_code not in _MAKERS and frame.f_globals["__name__"].startswith("asyncio."):
        frame = below
    return frame


_given: tuple[FrameType, list[Any]] | None = None
"""The call of asyncio.as_completed that makes its tasks now, and of what it has yet to make them, the first last."""


def _as_given(coro: Any, frame: FrameType) -> Any:
    """Whose turn it is. asyncio.as_completed makes its tasks out of a set, in any order: they are made in the order of its argument."""
    global _given
    if _given is None or _given[0] is not frame:
        given = frame.f_locals["fs"]
        if iter(given) is given:  # read already
            return coro
        left = [one for one in dict.fromkeys(given) if not asyncio.isfuture(one)]
        if isinstance(given, Set):
            left.sort(key=_described)
        _given = frame, left[::-1]
    first = _given[1].pop()
    if not _given[1]:
        _given = None
    return first


def _described(coro: Any) -> tuple[str, str]:
    """Tells apart coroutines that do different things."""
    name = getattr(coro, "__qualname__", "")
    return name, args_digest(tuple(inspect.getcoroutinelocals(coro).values())) if inspect.iscoroutine(coro) else ""


_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_noticing: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()
_making: Any = None
"""What a task is being made of: another factory may call ours in turn."""


def notice_branches(loop: asyncio.AbstractEventLoop) -> None:
    """From now on the loop tells attempts of the tasks and timers that their bodies make. Factories of others are called, too."""
    if loop not in _loops:
        _loops.add(loop)
        set_factory = loop.set_task_factory
        setattr(loop, "set_task_factory", lambda factory: set_factory(cast(Any, _factory(factory))))  # noqa: B010 - mypy's
        loop.set_task_factory(loop.get_task_factory())
        for name in ("call_at", "call_later"):
            setattr(loop, name, _noting(getattr(loop, name)))


def _factory(former: Any) -> Callable[..., Any]:
    if former in _noticing:  # set again by who has kept it
        return cast("Callable[..., Any]", former)
    make = former or _task

    def factory(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **how: Any) -> Any:
        global _making
        context = how.get("context")
        standing = (STANDING.get() if context is None else context.get(STANDING)) or None
        if type(standing) is not Branch or not standing.attempt.is_open or coro is _making:
            return make(loop, coro, **how)
        branches, maker = standing.attempt.branches, _maker()
        if maker.f_code is _AS_COMPLETED:
            coro = _as_given(coro, maker)
        task = current_task()  # where a context is shared by several tasks, it does not say which of them this is
        branch = branches.child(standing if task is None else branches.tasks.get(task, standing), coro, waited_for=maker.f_code is WAIT_FOR)
        work = coro if code_of(coro) in branches.attempt.OPERATIONS else Contained(coro)
        token, before, _making = STANDING.set(branch), _making, work
        try:
            made = make(loop, work, **how)
        finally:
            STANDING.reset(token)
            _making = before
        if not made.done():
            branches.adopt(made, branch)
        return made

    _noticing.add(factory)
    return factory


def _task(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **how: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **how)


def _noting(call: Callable[..., asyncio.TimerHandle]) -> Callable[..., asyncio.TimerHandle]:
    numbers = itertools.count()

    def noting(when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None) -> asyncio.TimerHandle:
        standing = STANDING.get() if context is None else context.get(STANDING)
        if type(standing) is not Branch:
            return call(when, callback, *args, context=context)
        branches, number = standing.attempt.branches, next(numbers)
        if standing.attempt.is_open:
            standing.attempt.branch_out()  # it may end while something else is waited for

        def ring() -> None:
            branches.timers.pop(number, None)
            callback(*args)

        branches.timers[number] = timer = call(when, ring, context=context)
        if len(branches.timers) % 1024 == 0:
            branches.drop_timers()
        return timer

    return noting
