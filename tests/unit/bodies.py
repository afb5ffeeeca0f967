"""Bodies without a server: attempts on a journal in memory, in a loop whose clock jumps to what comes next. They die where a test says."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar

from statemq.config import WorkerSettings
from statemq.context import Context
from statemq.store.commands import Queued
from statemq.worker.execute import Attempt
from statemq.worker.judge import Run
from statemq.worker.notice import notice_branches
from statemq.worker.slots import Slots
from statemq.worker.threads import Threads

T = TypeVar("T")
Body = Callable[[Context], Coroutine[Any, Any, Any]]

EPOCH_MS = 1_700_000_000_000


class Clockwork(asyncio.SelectorEventLoop):
    """Nobody waits: when nothing is ready, it is the time of the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s = 0.0

    def time(self) -> float:
        return self.at_s

    def _run_once(self) -> None:
        loop: Any = self
        if not loop._ready and (due := [timer._when for timer in loop._scheduled if not timer._cancelled]):
            self.at_s = max(self.at_s, min(due))
        loop._ready or loop._scheduled or loop.call_later(0.001, lambda: None)
        super()._run_once()  # type: ignore[misc]


def play(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=Clockwork) as runner:
        return runner.run(work())


class Store:
    """A command's journal as Redis has it."""

    def __init__(self, latency_s: float = 0.0) -> None:
        self.fields: dict[str, bytes] = {}
        self.latency_s = latency_s


class Tenure:
    """What an attempt sees of its partition and lane; after ``die`` nothing reaches the store any more."""

    def __init__(self, store: Store, **settings: Any) -> None:
        self.store, self.dead = store, False
        self.loop = asyncio.get_running_loop()
        self.settings = WorkerSettings(**settings)
        self.patience_s = self.settings.suspend_after_s
        self.slots, self.threads, self.crash = Slots(self.settings.concurrency), Threads(8), None
        self.spec, self.shop = SimpleNamespace(name="body"), SimpleNamespace(context=contextvars.Context())
        self.draining = self.closed = False
        self.suspected = self.task = None
        self.is_confirmed = self.is_settled = True
        self.batches = self.partition = self

    def now_ms(self) -> int:
        return EPOCH_MS + int(self.loop.time() * 1000 + 1e-6)

    async def settled(self) -> None: ...

    async def confirm(self) -> None: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self.loop.create_task(work, context=contextvars.Context())

    def record(self, c: Queued, field: str, value: bytes, started: bytes = b"") -> asyncio.Future[bytes | None]:
        answer = self.loop.create_future()
        self.loop.call_later(self.store.latency_s, self._apply, answer, field, value, started, context=self.shop.context)
        return answer

    def _apply(self, answer: asyncio.Future[bytes | None], field: str, value: bytes, started: bytes) -> None:
        if not self.dead:
            if started and not field.startswith("@"):
                self.store.fields.setdefault("@started", started)
            if field.startswith("@"):
                self.store.fields[field] = value
            stands = self.store.fields.setdefault(field, value)
            if not answer.done():
                answer.set_result(value if stands == value else stands)


class Died(Exception):
    pass


async def attempt(store: Store, body: Body, *, failed: int = 0, die_at_s: float | None = None, **settings: Any) -> tuple[str, Any]:
    """One attempt: how it ended (returned, raised, died, suspend), and with what."""
    notice_branches(asyncio.get_running_loop())
    tenure = Tenure(store, **settings)
    command = Queued("1-1", "body.0.x", "k", "run", b"", journal=dict(store.fields), attempts=failed)

    async def fn(instance: Any, ctx: Context) -> Any:
        return await body(ctx)

    case: Any = SimpleNamespace(fn=fn, has_ctx=True, timeout_ms=None)
    made = Attempt(tenure, command, Run(case, None, {}))  # type: ignore[arg-type]
    task = tenure.spawn(made.body())
    if die_at_s is not None:

        def die() -> None:
            tenure.dead = True
            made.stop("over")

        tenure.loop.call_later(die_at_s, die)
    await asyncio.wait([task])
    for _ in range(3):
        await asyncio.sleep(0)  # what it has left behind ends
    if made.stopped == "suspend":
        if not task.cancelled():
            task.exception()
        return "suspend", (made.due_ms - tenure.now_ms()) / 1000
    if made.stopped is not None:
        if not task.cancelled():
            task.exception()
        return "died", None
    return ("raised", task.exception()) if task.exception() else ("returned", task.result())


async def to_its_end(store: Store, body: Body, deaths: list[float] = [], **settings: Any) -> Any:  # noqa: B006
    """What the body returns in the end, over all its suspensions; it dies so many seconds after each of its first beginnings."""
    left = list(deaths)
    for _ in range(1000):
        how, what = await attempt(store, body, die_at_s=left.pop(0) if left else None, **settings)
        if how == "returned":
            return what
        if how == "raised":
            raise what
        if how == "suspend":
            await asyncio.sleep(max(0.0, what))
    raise AssertionError("it does not end")
