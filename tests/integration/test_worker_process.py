"""Worker processes: what kills them, what they are asked, and that neighbours never pay for it (P6, P14)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from statemq import Client, Failed
from statemq.server.host import end_with_parent
from statemq.worker.life import EXIT_STUCK
from tests.integration.poison import FOLDER, Poison
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
GOOD = 40


class Processes:
    """Starts workers of ``Poison``; leaves none."""

    def __init__(self, url: str, namespace: str, folder: Path) -> None:
        self.url, self.namespace, self.folder = url, namespace, folder
        self.started: list[subprocess.Popen[bytes]] = []

    def cli(self, *options: str, said: int | None = None) -> subprocess.Popen[bytes]:
        place = ["--redis", self.url, "--namespace", self.namespace]
        return self._start("statemq", "worker", "tests.integration.poison", *place, "--lease-ms", "1000", *options, said=said)

    def own(self, settings: str) -> subprocess.Popen[bytes]:
        return self._start("tests.integration.poison", self.url, self.namespace, settings)

    @property
    def said(self) -> str:
        return (self.folder / "worker.log").read_text()

    @property
    def lines(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def _start(self, module: str, *words: str, said: int | None = None) -> subprocess.Popen[bytes]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_")}
        env |= {"PYTHONPATH": str(ROOT), FOLDER: str(self.folder)}
        with (self.folder / "worker.log").open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *words],
                cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=said or file, stderr=said or file, preexec_fn=end_with_parent(),
            )  # fmt: skip
        self.started.append(process)
        return process

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.started:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def processes(url: str, namespace: str, tmp_path: Path) -> Iterator[Processes]:
    running = Processes(url, namespace, tmp_path)
    yield running
    running.close()


@pytest.fixture
async def client(url: str, namespace: str, processes: Processes) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Poison]) as opened:
        yield opened


@pytest.mark.parametrize("code", [9, 2])
async def test_poison_is_buried_and_its_neighbours_succeed(client: Client, processes: Processes, code: int) -> None:
    """Also when it ends its process as wrong usage does: that alone is no reason to start no worker any more."""
    before = await client.send_many([Poison.good(f"key {n}", n=n) for n in range(GOOD)])
    poison = await client.send(Poison.ends_the_process("poison", code=code))
    after = await client.send_many([Poison.good(f"key {n}", n=n) for n in range(GOOD)])
    processes.cli("--processes", "3")
    with pytest.raises(Failed, match="its worker's process died") as failed:
        await poison.result(timeout=60)
    assert failed.value.code == "crashes"
    for handles in (before, after):
        assert [await handle.result(timeout=30) for handle in handles] == list(range(GOOD))
    assert [letter.id for letter in await client.failed(Poison)] == [poison.id]
    # two deaths in company, of which the second may have been alone already, then max_crashes (3) alone
    assert 3 <= processes.lines.count("poison") <= 5
    assert await client.call(Poison.good("poison", n=1), timeout=30) == 1
    assert "starts again" in processes.said or "again in" in processes.said


async def test_a_loop_that_never_turns_ends_its_process_and_is_buried(client: Client, processes: Processes) -> None:
    stuck = await client.send(Poison.never_returns("a"))
    good = await client.send(Poison.good("b", n=2))
    settings = '{"stuck_after_s": 0.4, "lease_ms": 500, "max_crashes": 1}'

    def keep_three() -> bool:
        """One that watches its peers takes over at once, so there are always some."""
        for _ in range(3 - sum(process.poll() is None for process in processes.started)):
            processes.own(settings)
        return "poison/a never_returns failed" in processes.said

    await wait_until(keep_three, timeout_s=60)
    with pytest.raises(Failed, match="its worker's process died 3 times while it ran, 1 of them while it ran alone"):
        await stuck.result(timeout=30)
    assert await good.result(timeout=30) == 2
    assert "the event loop has not turned for" in processes.said
    assert "poison/a never_returns" in processes.said
    assert processes.lines.count("loop") == 3
    ended = [process.returncode for process in processes.started if process.poll() is not None]
    assert ended == [EXIT_STUCK] * 3


@pytest.mark.quick
async def test_sigterm_lets_what_is_short_end_and_hands_over(client: Client, processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "hold").touch()
    process = processes.cli("--grace", "60s")
    handle = await client.send(Poison.holds("a"))
    await wait_until(lambda: "begin" in processes.lines, timeout_s=30)
    process.send_signal(signal.SIGTERM)
    await wait_until(lambda: "ending in good order" in processes.said)
    (tmp_path / "hold").unlink()
    assert await handle.result(timeout=30) == "done"
    await wait_until(lambda: process.poll() is not None, timeout_s=30)
    assert process.returncode == 0
    assert [p.owner for p in await client.partitions(Poison)] == [""]
    assert processes.lines == ["step", "begin", "end"]


@pytest.mark.parametrize("how", ["grace", "twice"])
async def test_sigterm_leaves_what_is_long_to_the_next_owner(client: Client, processes: Processes, tmp_path: Path, how: str) -> None:
    (tmp_path / "hold").touch()
    process = processes.cli("--grace", "60s" if how == "twice" else "100ms")
    handle = await client.send(Poison.holds("a"))
    await wait_until(lambda: "begin" in processes.lines, timeout_s=30)
    process.send_signal(signal.SIGTERM)
    if how == "twice":
        await wait_until(lambda: "ending in good order" in processes.said)
        process.send_signal(signal.SIGTERM)
    await wait_until(lambda: process.poll() is not None, timeout_s=30)
    assert (await handle.status()).status in ("running", "queued")  # no outcome: shutdown never becomes one
    assert [p.owner for p in await client.partitions(Poison)] == [""]
    (tmp_path / "hold").unlink()
    processes.cli()
    assert await handle.result(timeout=30) == "done"
    assert (await handle.outcome()).attempts == 1
    assert processes.lines == ["step", "begin", "begin", "end"]


async def test_nobody_need_be_there_to_hear_that_it_ends(client: Client, processes: Processes, tmp_path: Path) -> None:
    """Its terminal was closed: nothing can be said any more, and a call does not return."""
    (tmp_path / "hold").touch()
    reader, writer = os.pipe()
    process = processes.cli("--grace", "100ms", said=writer)
    os.close(writer)
    handle = await client.send("poison", "a", "blocks")
    await wait_until(lambda: "begin" in processes.lines, timeout_s=30)
    os.close(reader)
    process.send_signal(signal.SIGHUP)
    await wait_until(lambda: process.poll() is not None, timeout_s=30)
    assert process.returncode == 0
    (tmp_path / "hold").unlink()
    processes.cli()
    assert await handle.result(timeout=30) is None


@pytest.mark.parametrize("transition", ["blocks", "blocks_beside", "blocks_elsewhere"])
async def test_a_blocking_call_that_does_not_return_keeps_no_process(
    client: Client, processes: Processes, tmp_path: Path, transition: str
) -> None:
    (tmp_path / "hold").touch()
    process = processes.cli("--grace", "100ms")
    handles = [await client.send("poison", f"key {n}", transition) for n in range(8)]
    await wait_until(lambda: processes.lines.count("begin") == 8, timeout_s=30)
    process.send_signal(signal.SIGTERM)
    await wait_until(lambda: process.poll() is not None, timeout_s=30)
    assert process.returncode == 0
    assert f"this process ends without waiting for 8 {'threads' if 'elsewhere' in transition else 'blocking calls'}" in processes.said
    assert [p.owner for p in await client.partitions(Poison)] == [""]
    (tmp_path / "hold").unlink()
    processes.cli()
    assert [await handle.result(timeout=30) for handle in handles] == [None] * 8
    assert processes.lines.count("begin") == 16


async def test_processes_end_together_on_sigterm(client: Client, processes: Processes) -> None:
    supervisor = processes.cli("--processes", "2")

    async def both() -> bool:
        return await client.live_workers(Poison) == 2

    await wait_until(both, timeout_s=30)
    assert await client.call(Poison.good("a", n=3), timeout=30) == 3
    supervisor.send_signal(signal.SIGTERM)
    await wait_until(lambda: supervisor.poll() is not None, timeout_s=30)
    assert supervisor.returncode == 0
    assert await client.live_workers(Poison) == 0
    assert [p.owner for p in await client.partitions(Poison)] == [""]


@pytest.mark.skipif(sys.platform != "linux", reason="its death is found out by /proc")
async def test_a_lone_worker_that_starts_again_does_not_wait_for_its_former_lease(client: Client, processes: Processes) -> None:
    """Nobody saw it die (P5), but its process is no more; one that only stands still keeps what it has."""
    settings = '{"lease_ms": 120000}'
    first = processes.own(settings)
    assert await client.call(Poison.good("a", n=1), timeout=30) == 1
    first.kill()
    first.wait()
    second = processes.own(settings)
    assert await client.call(Poison.good("a", n=2), timeout=30) == 2
    second.send_signal(signal.SIGSTOP)
    processes.own(settings)
    waits = await client.send(Poison.good("a", n=3))
    with pytest.raises(TimeoutError):
        await waits.result(timeout=4)  # more than one survey
    second.send_signal(signal.SIGCONT)
    assert await waits.result(timeout=30) == 3
