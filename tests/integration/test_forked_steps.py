"""Children of steps start clean: they hold no life sign, heed the signals that are for them, and come back into no code of the worker's."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from statemq import Client, Failed
from tests.integration.poison import LASTING, Poison
from tests.integration.test_suspects import kept
from tests.integration.test_worker_process import Processes, client, processes
from tests.waiting import wait_until

__all__ = ["client", "processes"]


@pytest.fixture
def children(processes: Processes) -> Iterator[None]:
    """None is left."""
    yield
    for line in processes.lines:
        if line.startswith("child "):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[1]), signal.SIGKILL)


@pytest.mark.usefixtures("children")
@pytest.mark.parametrize("how", LASTING)
async def test_a_dead_worker_is_heard_though_a_child_of_it_lives(client: Client, processes: Processes, how: str) -> None:
    """Its partition is taken over by its peer long before its lease has run out, and the death counts: so poison that forks is buried."""
    async with kept(processes, '{"lease_ms": 60000, "max_crashes": 1}'):

        async def two() -> bool:
            return len([w for w in await client.workers(Poison) if w.live]) == 2

        await wait_until(two, timeout_s=60)
        with pytest.raises(Failed, match="its worker's process died") as failed:
            await client.call(Poison.forks_and_kills("a", how=how), timeout=50)
        assert failed.value.code == "crashes"
    assert sum(line.startswith("child ") for line in processes.lines) == 3


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_a_child_that_is_asked_to_end_ends_and_its_worker_does_not(
    client: Client, processes: Processes, loop: str, method: str
) -> None:
    """Also in the very moment of its birth. And one that ends by itself ends well."""
    process = processes.own("{}") if loop == "asyncio" else processes.cli()
    assert await client.call(Poison.forks("a", how=f"terminated {method}"), timeout=120) == "[-15, -15]"
    assert await client.call(Poison.forks("a", how=f"ended {method}"), timeout=120) == "0"
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)  # which is still heard
    await wait_until(lambda: process.poll() is not None, timeout_s=30)
    assert process.returncode == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_child_that_comes_back_ends(client: Client, processes: Processes, loop: str) -> None:
    """A step whose child returns, exits or raises, in a thread or in the loop: it runs nothing else there, and the parent goes on."""
    process = processes.own("{}") if loop == "asyncio" else processes.cli()
    for where in ("", " in the loop"):
        for how, code in (("returns", "0"), ("exits", "7"), ("raises", "1")):
            assert await client.call(Poison.forks(how, how=how + where), timeout=60) == code
    assert await client.call(Poison.forks("turns", how="turns"), timeout=60) in ("0", "1")
    assert "the loop turned in a child" not in processes.lines
    assert await client.call(Poison.good("b", n=1), timeout=60) == 1
    assert process.poll() is None
