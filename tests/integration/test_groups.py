"""Errors in groups, as ``asyncio.TaskGroup`` raises them: each means what it means alone, and one rule says which of several decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from statemq import Client, Context, Fail, Failed, Machine, Reject, Rejected, Retry, transition
from statemq.errors import CommandError, StepConflict, StepFailed, TooLarge, deciding
from tests.working import working

log: list[str] = []

NO, STOLEN = "no stock", "card stolen"

RAISED: dict[str, BaseException] = {
    "reject": ExceptionGroup("g", [Reject(NO, "stock")]),
    "fail": ExceptionGroup("g", [Fail(STOLEN, "card")]),
    "nested": ExceptionGroup(
        "g", [ExceptionGroup("h", [ValueError("x")]), ExceptionGroup("h", [ExceptionGroup("i", [Fail(STOLEN, "card")])])]
    ),
    "reject and fail": ExceptionGroup("g", [Reject(NO, "stock"), Fail(STOLEN, "card")]),
    "reject and error": ExceptionGroup("g", [ConnectionError("reset"), Reject(NO, "stock")]),
    "fail and error": ExceptionGroup("g", [ConnectionError("reset"), Fail(STOLEN, "card")]),
    "fail and cancelled": BaseExceptionGroup("g", [asyncio.CancelledError(), Fail(STOLEN, "card")]),
    "failed": ExceptionGroup("g", [Failed(STOLEN, code="card")]),
    "errors": ExceptionGroup("g", [ConnectionError("reset"), ValueError("odd"), OSError("a"), OSError("b")]),
    "cancelled": BaseExceptionGroup("g", [asyncio.CancelledError()]),
    "exit": BaseExceptionGroup("g", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()]),
}

TRIED_AGAIN = ("errors", "cancelled", "exit")


def ending(what: str) -> type[CommandError]:
    return Rejected if what in ("reject", "reject and error") else Failed


def unsure(self: Groups, what: str) -> bool:
    log.append("guard")
    raise RAISED[what]


class Groups(Machine[None], initial="idle", retry=Retry(attempts=2, first=0.001), partitions=1):
    @transition(source="idle")
    async def raises(self, what: str) -> None:
        log.append("body")
        raise RAISED[what]

    @transition(source="idle")
    def deep(self, fails: bool) -> None:
        group: Exception = Fail(STOLEN, "card") if fails else ValueError("odd")
        for _ in range(5000):
            group = ExceptionGroup("g", [group])
        raise group

    @transition(source="idle")
    async def branches(self, what: str) -> None:
        async def branch() -> None:
            log.append("body")
            raise RAISED[what]

        async with asyncio.TaskGroup() as group:
            group.create_task(branch())

    @transition(source="idle")
    def purely(self, what: str) -> None:
        log.append("body")
        raise RAISED[what]

    @transition(source="idle", guard=unsure)
    def guarded(self, what: str) -> None:
        log.append("body")

    @transition(source="idle")
    async def steps(self, ctx: Context, what: str, thread: bool, timeout: float | None = None) -> str:
        async def step() -> None:
            log.append("step")
            raise RAISED[what]

        def blocking() -> None:
            log.append("step")
            raise RAISED[what]

        try:
            await ctx.step("step", blocking if thread else step, retry=Retry(attempts=2, first=0.001), timeout=timeout)
        except StepFailed as error:
            return f"{error.type}: {error.reason}"
        return ""

    @transition(source="idle")
    async def one_by_one(self, ctx: Context) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step("pay", stolen))
        return ""

    @transition(source="idle")
    async def caught(self, ctx: Context) -> str:
        said = ""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.step("pay", stolen))
        except* StepFailed as failed:
            said = str(failed.exceptions[0])
        return said

    @transition(source="idle")
    async def passes_on(self, ctx: Context) -> None:
        log.append("body")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.step("pay", stolen))
        except* ValueError:
            pass

    @transition(source="idle")
    async def caused(self) -> None:
        log.append("body")
        try:
            raise Fail(STOLEN)
        except Fail as error:
            raise ValueError("by it") from error

    @transition(source="idle")
    async def sleeps_in_branches(self, ctx: Context) -> str:
        async def branch() -> None:
            try:
                await ctx.sleep(0.3)
            finally:
                log.append("closed")

        async with asyncio.TaskGroup() as group:
            group.create_task(branch())
            group.create_task(branch())
        return "slept"


async def stolen() -> None:
    log.append("step")
    raise Fail(STOLEN, "card")


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    log.clear()
    async with Client(url, namespace=namespace, machines=[Groups]) as opened:
        yield opened


@pytest.mark.parametrize(
    ("errors", "decides"),
    [
        ([ValueError(), Reject(NO)], Reject),
        ([Reject(NO), ExceptionGroup("", [StepFailed("a", "", "")])], StepFailed),
        ([Reject(NO), StepConflict("a")], StepConflict),
        ([TooLarge("a", 2, 1), Fail(STOLEN)], TooLarge),
        ([ValueError(), KeyError()], BaseExceptionGroup),
        ([asyncio.CancelledError(), GeneratorExit()], BaseExceptionGroup),
    ],
)
def test_which_of_several_decides(errors: list[BaseException], decides: type[BaseException]) -> None:
    assert isinstance(deciding(BaseExceptionGroup("g", errors)), decides)


async def test_a_group_in_thousands_of_groups(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Groups):
        with pytest.raises(Failed, match=f"^{STOLEN}$"):
            await client.call(Groups.deep("a", fails=True), timeout=20)
        with pytest.raises(Failed, match="ValueError: odd"):
            await client.call(Groups.deep("a", fails=False), timeout=20)


@pytest.mark.parametrize("command", ["raises", "branches", "purely"])
async def test_a_body(client: Client, url: str, namespace: str, command: str) -> None:
    async with working(url, namespace, Groups):
        for what in RAISED:
            if command == "branches" and what in ("cancelled", "exit"):
                continue
            log.clear()
            with pytest.raises(ending(what)) as caught:
                await client.call(Groups, "a", command, {"what": what}, timeout=20)
            assert log == ["body"] * (2 if what in TRIED_AGAIN else 1), what
            if what not in TRIED_AGAIN:
                rejected = ending(what) is Rejected
                assert (caught.value.reason, caught.value.code) == ((NO, "stock") if rejected else (STOLEN, "card")), what
            elif what == "errors":
                assert "ConnectionError: reset; ValueError: odd; OSError: a; ..." in caught.value.reason
        letters = {letter.args: letter for letter in await client.failed(Groups)}
        mixed = letters['{"what":"fail and error"}']
        assert (mixed.reason, mixed.error) == (STOLEN, "Fail")
        assert "ConnectionError: reset" in mixed.traceback  # what else was in the group is not lost


async def test_a_guard(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Groups):
        for what in RAISED:
            with pytest.raises(ending(what)) as caught:
                await client.call(Groups.guarded("a", what=what), timeout=20)
            if ending(what) is Rejected:
                assert (caught.value.reason, caught.value.code) == (NO, "stock")
                assert (await client.can(Groups, "a", "guarded", {"what": what})).reason == NO
            else:
                assert caught.value.code == "guard", what
    assert "body" not in log


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("timeout", [None, 20.0])
async def test_a_step(client: Client, url: str, namespace: str, thread: bool, timeout: float | None) -> None:
    async with working(url, namespace, Groups):
        for what in RAISED:
            log.clear()
            got = await client.call(Groups.steps("a", what=what, thread=thread, timeout=timeout), timeout=20)
            fails = what not in TRIED_AGAIN and what not in ("reject", "reject and error", "failed")
            assert log == ["step"] * (1 if fails else 2), what
            assert ("Fail" in got or got.startswith(":")) == (what == "failed" or fails), (what, got)


async def test_a_step_that_failed_in_a_branch(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Groups):
        for command in (Groups.one_by_one("a"), Groups.passes_on("a")):
            with pytest.raises(Failed, match=STOLEN) as caught:
                await client.call(command, timeout=20)
            assert caught.value.code == "card"
        assert log == ["step", "body", "step"]
        assert await client.call(Groups.caught("a"), timeout=20) == f"step pay failed: {STOLEN}"


async def test_a_cause_is_no_group(client: Client, url: str, namespace: str) -> None:
    """Who raises another error from a Fail has said that it is another one."""
    async with working(url, namespace, Groups):
        with pytest.raises(Failed, match="ValueError: by it"):
            await client.call(Groups.caused("a"), timeout=20)
    assert log == ["body", "body"]


async def test_our_own_closing_of_a_body_is_no_error_of_its_group(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Groups, suspend_after_s=0.0):
        assert await client.call(Groups.sleeps_in_branches("a"), timeout=20) == "slept"
    assert log.count("closed") >= 4  # they left memory and came again
