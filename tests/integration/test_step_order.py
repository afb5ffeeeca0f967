"""The steps of a command are shown in the order in which they ran, whatever the order of their hash in the server is."""

from __future__ import annotations

import json
import random

import pytest

from statemq import Client
from statemq.store.router import Router
from tests.fake_worker import FakeWorker
from tests.integration.door import Door

N = 200
NAMES = random.Random(7).sample([f"step {n}" for n in range(N)], N)


def record(n: int, at: int, size: int) -> str:
    return json.dumps({"result": "x" * size, "at": at, **({"n": n} if n else {})})


@pytest.mark.leaves_work
@pytest.mark.parametrize("size", [1, 100])  # of large values a server makes another kind of hash
@pytest.mark.parametrize(
    ("place", "at"),
    [
        (lambda i: i + 1, lambda i: 1000),  # all at one time
        (lambda i: i + 1, lambda i: 1000 - i),  # the server's clock was set back
        (lambda i: 0, lambda i: 1000 + i),  # a former version numbered none
        (lambda i: max(0, i - N // 2), lambda i: 1000 + min(i, N // 2)),  # it began, and this one went on
    ],
)
async def test_steps_are_in_their_order(client: Client, fake: FakeWorker, router: Router, place, at, size: int) -> None:  # type: ignore[no-untyped-def]
    handle = await client.send(Door.open("a"))
    await fake.start("a")
    steps = (await fake.part("a")).steps(handle.id)
    by_hand = list(range(N))
    random.Random(size).shuffle(by_hand)
    for i in by_hand:
        await router.call(steps, "HSET", steps, NAMES[i], record(place(i), at(i), size))
    assert [step.name for step in (await handle.status()).steps] == NAMES


@pytest.mark.leaves_work
async def test_what_was_written_by_hand_is_shown_too(client: Client, fake: FakeWorker, router: Router) -> None:
    handle = await client.send(Door.open("a"))
    await fake.start("a")
    steps = (await fake.part("a")).steps(handle.id)
    odd = [
        "7",
        "[1]",
        "null",
        "no JSON",
        '{"n": "first", "at": "now", "took_ms": null}',
        '{"n": 1.5}',
        '{"n": {}}',
        '{"n": 99999999999999999999}',
    ]
    for i, raw in enumerate(odd):
        await router.call(steps, "HSET", steps, f"odd {i}", raw)
    await router.call(steps, "HSET", steps, "second", record(2, 5, 1), "first", record(1, 9, 1))
    names = [step.name for step in (await handle.status()).steps]
    assert sorted(names) == sorted([*(f"odd {i}" for i in range(len(odd))), "first", "second"])
    assert names.index("first") < names.index("second")
