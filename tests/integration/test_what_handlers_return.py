"""A handler is what it returns: what was not awaited is never stored, passed for an answer, or dropped in silence."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import msgspec
import pytest

from statemq import ANY, Client, Context, Failed, Machine, Retry, StatemqError, query, transition
from tests.working import working

F = TypeVar("F", bound=Callable[..., Any])

runs: list[str] = []


class Receipt(msgspec.Struct):
    total: int = 0


async def receipt(total: int) -> Receipt:
    runs.append("receipt")
    await asyncio.sleep(0)
    return Receipt(total)


async def late() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        runs.append("late")


async def exits() -> None:
    raise SystemExit(3)


def traced(fn: F) -> F:
    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        runs.append("traced")
        return fn(*args, **kwargs)

    return inner  # type: ignore[return-value]


def bare(fn: Any) -> Any:
    def inner(self: Any, ctx: Context, n: int) -> int:
        runs.append("bare")
        return fn(self, ctx, n)  # type: ignore[no-any-return]

    return inner


class Wrapper:
    """A decorator with a class of its own."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        functools.update_wrapper(self, fn)

    def __call__(self, *args: Any) -> Any:
        return self.fn(*args)


def later(self: Answers) -> Any:
    return yes(self)


async def yes(self: Answers) -> bool:
    return True


class Data(msgspec.Struct):
    kept: Any = None


class Answers(Machine[Data], initial="idle", retry=Retry(attempts=3, first=0.001), partitions=1):
    @transition(source="idle")
    @traced
    async def behind_a_decorator(self, ctx: Context, n: int) -> int:
        return (await ctx.step("receipt", receipt, n)).total

    @transition(source="idle")
    @bare
    @bare
    async def behind_a_bare_one(self, ctx: Context, n: int) -> int:
        return (await ctx.step("receipt", receipt, n)).total

    @transition(source="idle")
    @bare
    def behind_a_bare_one_at_once(self, ctx: Context, n: int) -> int:
        return n

    @transition(source="gone", target="gone")
    def by_state(self) -> str:
        return "gone"

    @by_state.when("idle")
    @traced
    async def by_state_when_idle(self) -> str:
        await asyncio.sleep(0)
        return "idle"

    @transition(source="idle")
    def undetected(self) -> Any:
        runs.append("body")
        return receipt(3)

    @transition(source="idle")
    def begins_a_task(self) -> Any:
        return asyncio.ensure_future(late())

    @transition(source="idle")
    async def twice(self) -> Any:
        runs.append("body")
        return receipt(3)

    @transition(source="idle")
    def generates(self) -> Any:
        return (n for n in range(3))

    @transition(source="idle")
    def keeps(self) -> None:
        self.data.kept = receipt(3)

    @transition(source="idle", guard=later)
    def guarded(self) -> None:
        runs.append("body")

    @transition(source="idle", target="gone")
    def go(self) -> None: ...

    @transition(source=ANY)
    async def steps(self, ctx: Context) -> list[str]:
        found = [
            await ctx.step("lambda", lambda: receipt(3), returns=Receipt),
            await ctx.step("partial", functools.partial(receipt, 4)),
            await ctx.step("decorated", traced(receipt), 5),
            await ctx.step("wrapped", Wrapper(receipt), 5),
            await ctx.step("class", Receipt, 6),
            await ctx.step("id", uuid.uuid4),
            await ctx.step("plain", lambda: {"a": [1, None]}),
        ]
        return [type(one).__name__ for one in found]

    @transition(source=ANY)
    async def unsaid(self, ctx: Context) -> None:
        await ctx.step("lambda", lambda: receipt(3))

    @transition(source=ANY)
    async def called(self, ctx: Context) -> None:
        await ctx.step("called", receipt(3))  # type: ignore[arg-type]

    @transition(source=ANY)
    async def needs_the_loop(self, ctx: Context) -> None:
        runs.append("body")
        await ctx.step("task", lambda: asyncio.get_running_loop().create_future(), retry=Retry(attempts=3, first=0.001))

    @transition(source=ANY)
    async def exits_later(self, ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step("exits", lambda: exits()))

    @transition(source=ANY)
    async def changed(self, ctx: Context) -> Any:
        runs.append("body")
        found: Any = await ctx.step("receipt", receipt, 3, returns=Receipt if ctx.attempt == 1 else dict[str, str])
        if ctx.attempt == 1:
            raise ConnectionError("once")
        return found

    @query
    def asked(self) -> Any:
        return receipt(3)


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    runs.clear()
    async with Client(url, namespace=namespace, machines=[Answers]) as opened:
        yield opened


async def test_a_coroutine_function_behind_a_plain_decorator(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Answers):
        assert await client.call(Answers.behind_a_decorator("a", n=3), timeout=20) == 3
        assert await client.call(Answers.by_state("a"), timeout=20) == "idle"
        assert runs == ["traced", "receipt", "traced"]
        runs.clear()
        assert await client.call(Answers, "a", "behind_a_bare_one", {"n": 3}, timeout=20) == 3
        assert await client.call(Answers, "a", "behind_a_bare_one_at_once", {"n": 4}, timeout=20) == 4
        assert runs == ["bare", "bare", "receipt", "bare"]
    assert [Answers.spec.transition(name).cases[0].pure for name in ("behind_a_bare_one", "behind_a_bare_one_at_once")] == [False, True]


@pytest.mark.filterwarnings("error::RuntimeWarning")
async def test_what_was_not_awaited_fails_its_command_at_once(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Answers):
        for command, why in (
            (Answers.undetected("a"), "undetected returned a coroutine that nobody has awaited: await it in an async def"),
            (Answers.twice("a"), "twice returned a coroutine that nobody has awaited"),
            (Answers.begins_a_task("a"), "begins_a_task returned Task, an awaitable, that nobody has awaited"),
            (Answers.generates("a"), "generates returned a generator: collect its values"),
            (Answers.guarded("a"), "guard later answered with a coroutine; a guard answers at once, true or false"),
        ):
            with pytest.raises(Failed, match=why):
                await client.call(command, timeout=20)
        assert runs == ["body", "body"]
        assert (await client.get(Answers, "a")).version == 0
        with pytest.raises(StatemqError, match="asked returned a coroutine that nobody has awaited"):
            await client.query(Answers, "a", "asked")


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_what_was_not_awaited_is_not_kept(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Answers):
        with pytest.raises(Failed, match=r"self\.data does not fit Data"):
            await client.call(Answers.keeps("a"), timeout=20)
        assert (await client.get(Answers, "a")).version == 0


async def test_a_step_awaits_what_its_function_gives(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Answers):
        assert await client.call(Answers.steps("a"), timeout=20) == ["Receipt"] * 5 + ["UUID", "dict"]
        for command, why in (
            (Answers.unsaid("a"), "step lambda returned a Receipt, and nothing says so when its record is read"),
            (Answers.needs_the_loop("a"), "step task failed: its function is a plain def, which runs in a thread without an event loop"),
            (Answers.called("a"), "step called was given coroutine, not a function"),
        ):
            with pytest.raises(Failed, match=why):
                await client.call(command, timeout=20)
        with pytest.raises(Failed, match="SystemExit"):
            await client.call(Answers.exits_later("a"), timeout=20)


async def test_a_record_of_another_type_fails_at_once(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Answers):
        with pytest.raises(Failed, match="step receipt was recorded with an object, which does not fit") as caught:
            await client.call(Answers.changed("a"), timeout=20)
        assert caught.value.code == "step_conflict"
        assert runs == ["body", "receipt", "body"]


class Keeps:
    def __init__(self, fn: Any) -> None:
        self.fn = fn

    def then(self, *args: Any) -> Any:
        return self.fn(*args)


def in_an_object(fn: Any) -> Any:
    keeps = Keeps(fn)
    return bare(lambda *args: keeps.then(*args))


def in_a_partial(fn: Any) -> Any:
    partly = functools.partial(functools.partial(fn))
    return bare(lambda *args: partly(*args))


def in_a_list(fn: Any) -> Any:
    chain = [fn]
    return bare(lambda *args: chain[0](*args))


def in_a_callable(fn: Any) -> Any:
    class Calls:
        async def __call__(self, *args: Any) -> Any:
            return await fn(*args)

    calls = Calls()
    return bare(lambda *args: calls(*args))


@pytest.mark.parametrize("around", [in_an_object, in_a_partial, in_a_list, in_a_callable])
async def test_a_coroutine_function_runs_as_one_wherever_its_decorator_keeps_it(
    around: Callable[[Any], Any], url: str, namespace: str
) -> None:
    class Kept(Machine[None], initial="idle", retry=Retry(attempts=3, first=0.001), partitions=1):
        @transition(source="idle")
        @around
        async def go(self, ctx: Context, n: int) -> int:
            return n + (await ctx.step("receipt", receipt, n)).total

    async with working(url, namespace, Kept), Client(url, namespace=namespace, machines=[Kept]) as client:
        assert await client.call(Kept.go("a", n=2), timeout=20) == 4
