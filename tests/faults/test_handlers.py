"""Faults 4, 5, 9, 11 and 12: bodies that block, spin and eat, a worker as process 1, a fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from statemq import Cancelled, Client, StatemqError
from statemq.errors import UsageError
from statemq.server.host import end_with_parent
from tests.faults.crew import crew, goes_on
from tests.faults.imp import MEMORY, Imp
from tests.faults.tally import Tally
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
Launch = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Imp]) as opened:
        yield opened


@pytest.fixture
def launch(url: str, namespace: str, tmp_path: Path) -> Iterator[Launch]:
    """A worker's process group; leaves no process."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*options: str, before: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[bytes]:
        words = ["-m", "statemq", "worker", "tests.faults.imp", "--redis", url, "--namespace", namespace, *options]
        env = {k: v for k, v in os.environ.items() if not k.startswith("STATEMQ_")} | {"PYTHONPATH": str(ROOT)} | environment
        with (tmp_path / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [*before, sys.executable, *words], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=end_with_parent(),
            )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.chaos
async def test_f04_a_body_that_holds_the_interpreter_s_lock_for_leases(client: Client, launch: Launch) -> None:
    """Nobody can renew meanwhile, so another takes over and runs it, too; it ends, one way or the other, and everybody goes on."""
    launch("--processes", "2", "--lease-ms", "500")
    assert await client.call(Imp.good("a", n=1), timeout=60) == 1
    began = time.monotonic()
    sum(range(2_000_000))
    per_round = (time.monotonic() - began) / 2_000_000
    held = await client.send(Imp.holds_the_lock("a", rounds=int(1.5 / per_round)))
    others = await client.send_many([Imp.good(f"k{n}", n=n) for n in range(20)])
    assert (await held.outcome(timeout=60)).outcome in ("completed", "failed")
    assert [await handle.result(timeout=60) for handle in others] == list(range(20))


async def test_f05_a_body_that_never_ends_holds_up_no_other_key(client: Client, url: str, namespace: str) -> None:
    """It can be cancelled; ``timeout=`` would end it, too (``test_time_limit``)."""
    async with crew(url, namespace, workers=1, machine=Imp):
        spinning = await client.send(Imp.spins("a"))
        for n in range(30):
            assert await client.call(Imp.good("b", n=n), timeout=30) == n
        assert await spinning.cancel() in ("asked", "cancelled")
        with pytest.raises(Cancelled):
            await spinning.result(timeout=30)
        await goes_on(client, time.monotonic(), machine=Imp)


@pytest.mark.chaos
async def test_f09_a_body_that_eats_all_memory(client: Client, launch: Launch) -> None:
    """It fails by MemoryError, or its process dies of it, again and again, and it is buried; the others of its partition succeed."""
    before = await client.send_many([Imp.good(f"k{n}", n=n) for n in range(20)])
    eats = await client.send(Imp.eats("k1"))
    after = await client.send_many([Imp.good(f"k{n}", n=n) for n in range(20)])
    launch("--processes", "2", "--lease-ms", "1000", **{MEMORY: "300"})
    outcome = await eats.outcome(timeout=90)
    assert outcome.outcome == "failed"
    assert "MemoryError" in outcome.reason or outcome.code == "crashes", outcome
    for handles in (before, after):
        assert [await handle.result(timeout=60) for handle in handles] == list(range(20))


@pytest.mark.chaos
async def test_f11_as_process_1_of_a_container(client: Client, launch: Launch) -> None:
    """Its children are reaped and replaced, and SIGTERM ends it in good order."""
    if subprocess.run(["unshare", "-pf", "true"], capture_output=True).returncode:
        pytest.skip("no process namespaces here (root only)")
    outer = launch("--processes", "2", "--lease-ms", "1000", before=("unshare", "-pf", "--kill-child"))
    assert await client.call(Imp.good("a", n=1), timeout=60) == 1
    (first,) = children(outer.pid)
    await wait_until(lambda: len(children(first)) == 2, 30)
    await wait_until(lambda: two(client), 30)
    before = {worker.id for worker in await client.workers(Imp)}
    os.kill(children(first)[0], signal.SIGKILL)
    await wait_until(lambda: len(children(first)) == 2 and not zombies(first), 30)
    assert await client.call(Imp.good("a", n=2), timeout=60) == 2

    async def replaced() -> bool:
        return bool({worker.id for worker in await client.workers(Imp)} - before)

    await wait_until(replaced, 30)
    os.kill(first, signal.SIGTERM)
    await wait_until(lambda: outer.poll() is not None, 30)
    assert outer.returncode == 0
    assert await client.live_workers(Imp) == 0


async def two(client: Client) -> bool:
    return await client.live_workers(Imp) == 2


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def zombies(pid: int) -> list[int]:
    found = []
    for child in children(pid):
        try:
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                found.append(child)
        except FileNotFoundError:
            continue
    return found


async def test_f12_a_client_that_was_connected_before_a_fork_says_so(url: str, namespace: str) -> None:
    """In the child; the parent's connection is not touched."""
    async with Client(url, namespace=namespace, machines=[Tally]) as client, crew(url, namespace, workers=1):
        child = os.fork()
        if child == 0:  # nothing of the parent's loop is run here
            code = 1
            try:
                client.get(Tally, "a").send(None)
            except UsageError as error:
                code = 0 if "forked" in str(error) else 2
            except StatemqError:
                code = 3
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await client.call(Tally.echo("a", n=1), timeout=30) == [1]
