"""The examples' bodies, run in memory: what they answer, and what is left to do after a crash."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from statemq import Context, Machine
from statemq.examples import resource
from statemq.examples.resource import Resource
from statemq.examples.switch import Switch
from statemq.retry import Retry


class Memory:
    """An engine with a journal in memory; sleeps take no time. Crashes before the step or sleep numbered ``crash_at``."""

    logger = logging.LoggerAdapter(logging.getLogger("test"), {})

    def __init__(self) -> None:
        self.journal: dict[str, Any] = {}
        self.ran: list[str] = []
        self.slept_ms = 0
        self.crash_at: int | None = None
        self.calls = 0

    async def step(
        self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], retry: Retry | None, timeout_ms: int | None, returns: Any
    ) -> Any:
        self.crash_if_asked()
        if name not in self.journal:
            self.ran.append(name)
            value = fn(*args)
            self.journal[name] = await value if asyncio.iscoroutine(value) else value
        return self.journal[name]

    async def sleep(self, ms: int) -> None:
        self.crash_if_asked()
        self.slept_ms += ms

    def crash_if_asked(self) -> None:
        self.calls += 1
        if self.calls == self.crash_at:
            raise ConnectionError

    def now_ms(self) -> int:
        return 0

    def uuid(self) -> uuid.UUID:
        return uuid.UUID(int=random.getrandbits(128))


class Instances:
    """One machine's instances in memory, and a worker that runs one command."""

    def __init__(self, machine: type[Machine[Any, Any]]) -> None:
        self.spec = machine.spec
        self.stored: dict[str, tuple[str, int, bytes | None]] = {}

    async def run(self, key: str, transition: str, engine: Memory | None = None) -> Any:
        state, version, data = self.stored.get(key, (self.spec.initial, 0, None))
        spec = self.spec.transition(transition)
        case = spec.case(state)
        assert case is not None
        instance = self.spec.build(key, state, version, data)
        context = Context(engine or Memory(), key, f"{self.spec.name}.0.0123456789abcdef", 1)
        answer = case.fn(instance, *([context] if case.has_ctx else []), **spec.decode_arguments(b"{}"))
        if isinstance(answer, Awaitable):
            answer = await answer
        result = spec.decode_result(spec.encode_result(answer))
        self.stored[key] = self.spec.finish(case, instance), version + 1, self.spec.encode_data(instance)
        return result


async def test_the_demo_batch() -> None:
    instances = Instances(Resource)
    batch = [("a", "setUp"), ("a", "tearDown"), ("b", "setUp"), ("b", "setUp"), ("b", "tearDown"), ("c", "tearDown")]
    assert [await instances.run(key, transition) for key, transition in batch] == [
        "a is now UP",
        "a is now DOWN",
        "b is now UP",
        "b is already UP",
        "b is now DOWN",
        "c is not yet UP",
    ]


async def test_a_transition_takes_its_seconds() -> None:
    instances = Instances(Resource)
    for transition in ("setUp", "tearDown"):
        engine = Memory()
        await instances.run("a", transition, engine)
        assert engine.slept_ms == resource.SECONDS * 1000


@pytest.mark.parametrize("crash_at", range(1, 6))
async def test_recorded_steps_do_not_run_again(crash_at: int) -> None:
    instances, engine = Instances(Resource), Memory()
    engine.crash_at = crash_at
    with pytest.raises(ConnectionError):
        await instances.run("a", "setUp", engine)
    assert "a" not in instances.stored
    assert await instances.run("a", "setUp", engine) == "a is now UP"
    assert engine.ran == ["allocate", "boot", "health check"]
    data = instances.spec.decode_data(instances.stored["a"][2] or b"")
    assert (data.address, data.boot_id) == (engine.journal["allocate"], engine.journal["boot"])


async def test_the_status_answers_in_every_state() -> None:
    instances = Instances(Resource)
    spec = Resource.spec
    assert spec.query("status").fn(spec.build("a", "DOWN", 0, None)) == "a is DOWN"
    await instances.run("a", "setUp")
    assert spec.query("status").fn(spec.build("a", *instances.stored["a"])).startswith("a is UP at 10.97.1.")


async def test_the_switch() -> None:
    instances = Instances(Switch)
    assert [await instances.run("a", "flip") for _ in range(3)] == [1, 2, 3]
    assert instances.stored["a"][0] == "ON"
    assert await instances.run("a", "steps") == 6
    assert instances.stored["a"][0] == "ON"
