"""A body with branches does what plain asyncio does, at the same times, in and out of memory; and after a death it decides as before."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from statemq.context import Context
from statemq.retry import Retry
from tests.unit.bodies import Store, play, to_its_end

SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


# A program is a tree. Its leaves last for times that never meet: so who is first does not depend on a tie.
DEATHS = st.lists(st.floats(0.0, 60.0), min_size=1, max_size=4)


def programs(plain: bool) -> st.SearchStrategy[Any]:
    """``plain``: with waits of asyncio's own, which begin anew with each attempt."""
    leaves = st.tuples(st.sampled_from(["step", "sleep", "step", "sleep", "fails", "draw"] + ["plain"] * plain), st.integers(1, 40))
    return st.recursive(
        leaves,
        lambda below: st.one_of(
            st.tuples(st.just("seq"), st.lists(below, min_size=1, max_size=3)),
            st.tuples(st.sampled_from(["gather", "group", "race", "race", "any_failed"]), st.lists(below, min_size=2, max_size=3)),
            st.tuples(
                st.sampled_from(["timeout", "shield"] + ["wait_for", "timer"] * plain),
                st.lists(below, min_size=1, max_size=1),
                st.integers(1, 40),
            ),
        ),
        max_leaves=9,
    )


class Plain:
    """``ctx`` without an engine."""

    async def step(self, name: str, fn: Any, *args: Any, **_: Any) -> Any:
        return await fn(*args)

    async def sleep(self, s: float) -> None:
        await asyncio.sleep(s)

    def timeout(self, s: float) -> Any:
        return asyncio.timeout(s)


class Program:
    def __init__(self, tree: Any) -> None:
        self.tree, self.ran = tree, Counter[str]()

    def lasts(self, whole: int, at: str) -> float:
        """Apart from all others by at least a millisecond, also in sums of a few."""
        return whole + 0.001 * (sum(ord(c) * 7**i for i, c in enumerate(at)) % 997)

    async def work(self, name: str, s: float, heard: str) -> str:
        self.ran[name] += 1
        await asyncio.sleep(s)
        return name

    async def fail(self, name: str, s: float, heard: str) -> str:
        self.ran[name] += 1
        await asyncio.sleep(s)
        raise ValueError(name)

    async def run(self, ctx: Any, node: Any, at: str, heard: list[Any]) -> Any:
        """What the node gives. ``heard``: all that this branch knows. A step is given it: so a replay that went another way is found."""
        kind, what = node[0], node[1]
        out: Any = kind
        if kind == "step":
            out = await ctx.step(at, self.work, at, self.lasts(what, at), json.dumps(heard, default=str))
        elif kind == "fails":
            try:
                await ctx.step(at, self.fail, at, self.lasts(what, at), json.dumps(heard, default=str), retry=Retry(attempts=1))
            except Exception:  # noqa: BLE001 - as each engine raises it
                out = "failed"
        elif kind == "sleep":
            await ctx.sleep(self.lasts(what, at))
        elif kind == "plain":
            await asyncio.sleep(self.lasts(what, at))
        elif kind == "draw":
            if isinstance(ctx, Context):
                heard.append([str(ctx.uuid()), ctx.random.random(), ctx.now().isoformat()])
            await ctx.sleep(self.lasts(what, at))
        elif kind == "seq":
            out = [await self.run(ctx, below, f"{at}.{i}", heard) for i, below in enumerate(what)]
        elif kind == "shield":
            task = asyncio.ensure_future(self.run(ctx, what[0], f"{at}.0", [*heard]))
            try:
                out = await asyncio.shield(task)
            finally:
                task.cancel()
        elif kind in ("timeout", "timer", "wait_for"):
            s = self.lasts(node[2], at)
            try:
                if kind == "wait_for":
                    out = await asyncio.wait_for(self.run(ctx, what[0], f"{at}.0", heard), s)
                else:
                    async with ctx.timeout(s) if kind == "timeout" else asyncio.timeout(s):
                        out = await self.run(ctx, what[0], f"{at}.0", heard)
            except TimeoutError:
                out = "late"
        else:
            branches = [self.run(ctx, below, f"{at}.{i}", [*heard]) for i, below in enumerate(what)]
            if kind == "gather":
                out = await asyncio.gather(*branches)
            elif kind == "group":
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(branch) for branch in branches]
                out = [task.result() for task in tasks]
            else:
                tasks = [asyncio.ensure_future(branch) for branch in branches]
                when = asyncio.FIRST_COMPLETED if kind == "race" else asyncio.FIRST_EXCEPTION
                try:
                    await asyncio.wait(tasks, return_when=when)
                    out = [task.result() if task.done() else "lost" for task in tasks]
                finally:
                    for task in tasks:
                        task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        heard.append(out)
        return out

    async def body(self, ctx: Any) -> Any:
        return await self.run(ctx, self.tree, "r", [])


async def plainly(tree: Any) -> tuple[Any, float]:
    began = asyncio.get_running_loop().time()
    out = await Program(tree).body(Plain())
    return out, asyncio.get_running_loop().time() - began


async def durably(tree: Any, deaths: list[float], latency_s: float, suspend_after_s: float) -> tuple[Any, float, Counter[str]]:
    program, began = Program(tree), asyncio.get_running_loop().time()
    out = await to_its_end(Store(latency_s), program.body, deaths, suspend_after_s=suspend_after_s)
    return out, asyncio.get_running_loop().time() - began, program.ran


def compare(tree: Any, suspend_after_s: float) -> None:
    wanted, took_s = play(lambda: plainly(tree))
    got, durably_s, ran = play(lambda: durably(tree, [], 0.0, suspend_after_s))
    assert got == wanted
    assert took_s - 0.001 <= durably_s <= took_s + 0.1
    assert all(n == 1 for n in ran.values())


@SETTINGS
@given(programs(plain=True))
def test_it_does_what_plain_asyncio_does_at_the_same_times(tree: Any) -> None:
    compare(tree, suspend_after_s=1000.0)


@SETTINGS
@given(programs(plain=False), st.sampled_from([0.01, 0.5, 3.0]))
def test_it_does_also_where_it_leaves_memory(tree: Any, suspend_after_s: float) -> None:
    compare(tree, suspend_after_s)


CUT_SHORT = ("gather", [("seq", [("step", 1), ("sleep", 1), ("sleep", 2)]), ("wait_for", [("step", 2)], 1)])
"""Its second step is cancelled by a plain time-out; then it sleeps twice."""


@SETTINGS
@given(programs(plain=True), st.sampled_from([0.01, 0.5, 3.0]))
@example(CUT_SHORT, 0.01)
def test_a_step_that_the_body_cuts_short_runs_once_also_where_it_leaves_memory(tree: Any, suspend_after_s: float) -> None:
    _, _, ran = play(lambda: durably(tree, [], 0.0, suspend_after_s))
    assert all(n == 1 for n in ran.values())


@SETTINGS
@example(CUT_SHORT, [0.0], 0.0, 0.01)
@given(
    programs(plain=True),
    st.lists(st.floats(0.0, 60.0), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.003]),
    st.sampled_from([0.01, 0.5, 1000.0]),
)
def test_after_each_death_it_decides_as_it_had(tree: Any, deaths: list[float], latency_s: float, suspend_after_s: float) -> None:
    """A step that is called with other arguments than were recorded raises StepConflict; its arguments here are all that was decided."""
    _, _, ran = play(lambda: durably(tree, deaths, latency_s, suspend_after_s))
    assert all(n <= 1 + len(deaths) for n in ran.values())
