"""A body's branches: the tasks that it makes. They are told apart by who made them, and in which order, so that each finds its own records
again at the next attempt.

A task factory on the worker's loop notices them, whether ``gather``, a ``TaskGroup`` or ``create_task`` makes them; what a step's function
makes is none. What each waits for is known where asyncio's own ways of waiting show it; anything else is a plain await, and nobody
guesses how it ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, cast

from statemq.worker.step import Step
from statemq.worker.waits import Timeout, current_task

if TYPE_CHECKING:
    from statemq.worker.execute import Attempt


CANCELLED_WITHIN = 8
"""Turns of the loop in which branches that were cancelled end those that they wait for."""


class Branch:
    """Where a branch stands in its body, by which its operations are named; ``path`` is "pay@2." for its second pay, "" for the body."""

    __slots__ = ("_counts", "_random", "attempt", "of", "path", "used")

    def __init__(self, attempt: Attempt, path: str = "", of: Branch | None = None) -> None:
        self.attempt, self.path, self.of = attempt, path, of
        self._counts: dict[str, int] | None = None
        self._random: random.Random | None = None
        self.used = False
        """It has called a durable operation, or a branch below it has."""

    def count(self, kind: str) -> int:
        """The number of this use among the branch's of this kind; counted when it is called."""
        if self._counts is None:
            self._counts = {}
        n = self._counts[kind] = self._counts.get(kind, 0) + 1
        return n

    def random(self) -> random.Random:
        if self._random is None:
            seed = self.attempt.command.identity
            self._random = random.Random(f"{seed}/{self.path}" if self.path else seed)  # noqa: S311 - stable under replay, not secret
        return self._random


STANDING: contextvars.ContextVar[Branch | Step | None] = contextvars.ContextVar("statemq_standing", default=None)
"""The branch that this code is of; in a step's function, the step."""


class Branches:
    """The live tasks of one attempt, its body's own among them."""

    def __init__(self, attempt: Attempt, body: asyncio.Task[Any] | None) -> None:
        self.attempt, self.main = attempt, attempt.main
        self.tasks: dict[asyncio.Task[Any], Branch] = {} if body is None else {body: self.main}
        self.timers: dict[int, asyncio.TimerHandle] = {}
        """Plain timers that the body has set and that have not rung: they may end what it waits for."""
        self.held: set[asyncio.Future[Any]] = set()
        """Futures that only this engine completes, in its own time: sleeps, and turns of what is recorded."""
        self._free: dict[asyncio.Task[Any], None] = dict.fromkeys(self.tasks)
        """Those that do not stand in such a future themselves: a look at whether all is quiet must not cost more the more sleep."""

    def here(self) -> Branch:
        """The branch that calls."""
        standing = STANDING.get()
        if type(standing) is Step:
            return _branch_of(standing, self.attempt)
        task = current_task()
        branch = None if task is None else self.tasks.get(task)
        if branch is None:
            branch = standing if type(standing) is Branch and standing.attempt is self.attempt else self.main
            if task is not None and branch is standing:  # made by a factory that was set after ours
                self.attempt.branch_out()
                self.adopt(task, branch)
        return branch

    def use(self) -> None:
        """The branch that calls does something durable."""
        branch: Branch | None = self.here()
        while branch is not None and not branch.used:
            branch.used, branch = True, branch.of

    def adopt(self, task: asyncio.Task[Any], branch: Branch) -> None:
        self.tasks[task], self._free[task] = branch, None
        task.add_done_callback(self._ended, context=self.attempt.partition.shop.context)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)
        self._free.pop(task, None)
        self.attempt.moved()

    def child(self, of: Branch, coro: Any, *, waited_for: bool) -> Branch:
        """The branch of a task that ``of`` makes for ``coro``; before Python 3.12 wait_for makes one, in which the branch goes on."""
        attempt = self.attempt
        attempt.branch_out()
        if code_of(coro) in attempt.OPERATIONS or attempt.former or waited_for:  # an operation has its name already
            return of
        # counted for each function: what a library makes, such as once for each connection, does not count among the body's own
        name = f"{getattr(coro, '__name__', type(coro).__name__)}@"
        return Branch(attempt, f"{of.path}{name}{of.count(name)}.", of)

    def cancel(self, body: asyncio.Task[Any] | None) -> None:
        """The body has ended: what may still do something durable ends, too. What never did, such as a task of a library, is left alone."""
        for task, branch in list(self.tasks.items()):
            if task is body:
                del self.tasks[task]
                self._free.pop(task, None)
            elif branch.used or self.is_operation(task):
                task.cancel()

    def is_operation(self, task: asyncio.Task[Any]) -> bool:
        """The task was made of a step or a sleep itself."""
        return code_of(_coro(task)) in self.attempt.OPERATIONS

    # -- what they wait for ------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """None has anything to do now."""
        for task in self._free:
            fut: Any = getattr(task, "_fut_waiter", None)
            if fut is None or fut.done():
                return False
        return True

    async def hold(self, fut: asyncio.Future[None]) -> None:
        """Returns when this engine has completed it."""
        task = current_task()
        self.held.add(fut)
        if task is not None:
            self._free.pop(task, None)
        try:
            await fut
        finally:
            self.held.discard(fut)
            if task in self.tasks:
                self._free[task] = None

    @property
    def held_all(self) -> bool:
        """All wait for what is held, or for each other, as far as can be told; then nothing but this engine ends it."""
        if self.timers and self.drop_timers():
            return False
        return all(self._is_held(task) for task in self.tasks)

    def drop_timers(self) -> dict[int, asyncio.TimerHandle]:
        self.timers = {key: timer for key, timer in self.timers.items() if not timer.cancelled()}
        return self.timers

    def _is_held(self, task: Any) -> bool:
        fut = task._fut_waiter
        if fut is None or fut.done():
            return False
        return self._comes_of_them(fut) or self._all_of_them(_awaited(task))

    def _comes_of_them(self, fut: Any) -> bool:
        return fut in self.held or fut in self.tasks or self._all_of_them(_members(fut))

    def _all_of_them(self, futures: Iterable[Any] | None) -> bool:
        left = [fut for fut in futures or () if not fut.done()]
        return bool(left) and all(self._comes_of_them(fut) for fut in left)


async def left_behind(attempt: Attempt) -> str:
    """In words, what the body has called and neither awaited nor entered when it returns; "" if nothing. A sleep may lose a race."""
    left = _left_behind(attempt)
    for _ in range(CANCELLED_WITHIN):
        if not left or not any(task.cancelling() for task in attempt.branches.tasks):
            break
        await asyncio.sleep(0)  # who was cancelled cancels others in turn
        left = _left_behind(attempt)
    return left


def _left_behind(attempt: Attempt) -> str:
    tasks = [task for task in attempt.branches.tasks if task is not asyncio.current_task()]
    owners = {_coro(task): task for task in tasks}
    running = [field for field, task in attempt.in_step.items() if not task.cancelling()]
    for field, coro in attempt.called.items():
        what = f"{field.partition('@')[0]} {field.partition('@')[2]}" if "@" in field else f"step {field}"
        if isinstance(coro, Timeout):
            if not coro.forgotten:
                continue
            return f"{what} was called but never entered, so it bounds nothing; write async with ctx.timeout(…)"
        if inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED:  # cancelled before it began
            continue
        if coro not in owners:
            return f"{what} was called but never awaited; await it"
        if "@" not in field and not owners[coro].cancelling():
            running.append(field)
    if running:
        return f"step {', '.join(running)} was still running when the transition returned; await or cancel it"
    for task in tasks:
        coro = _coro(task)
        created = inspect.iscoroutine(coro) and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED
        if created and not task.cancelling() and any(value is attempt.context for value in inspect.getcoroutinelocals(coro).values()):
            return f"{coro.__qualname__} had not begun when the transition returned; await or cancel its task"
    return ""


def drop(called: dict[str, Coroutine[Any, Any, Any] | Timeout], branches: Branches) -> None:
    """What was called and will not be awaited is dropped: Python need not say so, too."""
    owned = {_coro(task) for task in branches.tasks} if called else set()
    for coro in called.values():
        if not isinstance(coro, Timeout) and coro not in owned:
            coro.close()
    called.clear()


def _branch_of(step: Step, attempt: Attempt) -> Branch:
    """Within a step: what it draws changes nothing for the rest of the body, which will not run it again."""
    if step.branch is None:
        step.branch = Branch(attempt, f"{step.field}@")
    return cast(Branch, step.branch)


def _coro(task: Any) -> Any:
    coro = task.get_coro()
    return getattr(coro, "contained", coro)


def code_of(coro: Any) -> Any:
    return getattr(coro, "cr_code", None)


_WAIT = asyncio.wait.__globals__["_wait"].__code__
WAIT_FOR = asyncio.wait_for.__code__
_GROUP = asyncio.TaskGroup.__aexit__.__code__


def _awaited(task: Any) -> Iterable[Any] | None:
    """The futures that a task waits for by way of asyncio.wait, wait_for or the end of a TaskGroup."""
    coro = _coro(task)
    while hasattr(inner := getattr(coro, "cr_await", None), "cr_code"):
        coro = inner
    if coro is None or (frame := getattr(coro, "cr_frame", None)) is None:
        return None
    if coro.cr_code is _WAIT:
        return cast("Iterable[Any]", frame.f_locals["fs"])
    if coro.cr_code is WAIT_FOR:
        fut = frame.f_locals.get("fut")
        return [fut] if asyncio.isfuture(fut) else None
    if coro.cr_code is _GROUP:
        return cast("Iterable[Any]", frame.f_locals["self"]._tasks)
    return None


def _members(fut: Any) -> Iterable[Any] | None:
    """What completes the future that asyncio.gather or shield gave."""
    if type(fut).__name__ == "_GatheringFuture":
        return cast("Iterable[Any]", fut._children)
    for callback, _ in getattr(fut, "_callbacks", None) or ():
        if getattr(callback, "__qualname__", "") == "shield.<locals>._outer_done_callback":
            free = dict(zip(callback.__code__.co_freevars, callback.__closure__ or (), strict=True))
            return [free["inner"].cell_contents] if "inner" in free else None
    return None
