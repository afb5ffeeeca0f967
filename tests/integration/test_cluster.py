"""Three cluster nodes: partitions spread over them, commands run, a killed worker's partitions are taken over."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from redis import Redis

from statemq import Client, Context, Machine, transition
from statemq.doctor.examine import examine
from statemq.doctor.finding import Level
from statemq.keys import PartitionKeys, partition_of
from statemq.server import EmbeddedServer
from statemq.server.host import end_with_parent, free_port
from statemq.store.address import Address
from statemq.store.libraries import KEEP_S, Libraries
from statemq.store.router import Router
from tests.waiting import block_until, wait_until
from tests.working import working

ROOT = Path(__file__).parents[2]
NODES, SLOTS = 3, 16384
HOLD = "CLUSTER_TEST_HOLD"
"""Environment: a file; while it is there, ``hold`` does not end."""


def note(line: str) -> str:
    with Path(os.environ[HOLD]).with_name("log").open("a") as file:
        file.write(line + "\n")
    return line


class Globe(Machine[None], initial="still", partitions=8):
    @transition(source="still")
    async def spin(self, ctx: Context, times: int) -> int:
        for n in range(times):
            await ctx.step(f"turn {n}", lambda: None)
        return times

    @transition(source="still")
    async def nap(self, ctx: Context) -> str:
        await ctx.sleep(0.05)
        return ctx.key

    @transition(source="still")
    def ping(self) -> str:
        return self.key

    @transition(source="still")
    async def hold(self, ctx: Context) -> str:
        await ctx.step("first", note, f"first {ctx.key}")
        note(f"begin {ctx.key}")
        while Path(os.environ[HOLD]).exists():
            await ctx.sleep(0.01)
        return await ctx.step("last", note, f"last {ctx.key}")


@contextmanager
def nodes_of(folder: Path, *config: str) -> Iterator[list[EmbeddedServer]]:
    """A cluster whose nodes know each other."""
    with ExitStack() as stack:
        nodes, buses = [], []
        for n in range(NODES):
            buses.append(free_port())
            words = ("--cluster-enabled", "yes", "--cluster-port", str(buses[n]), "--cluster-config-file", "nodes.conf", *config)
            nodes.append(stack.enter_context(EmbeddedServer(folder / str(n), config=words, appendonly=False)))
        clients = [stack.enter_context(Redis.from_url(node.url)) for node in nodes]
        for n, client in enumerate(clients):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", n * SLOTS // NODES, (n + 1) * SLOTS // NODES - 1)
        for node, bus in zip(nodes[1:], buses[1:], strict=True):
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)

        def whole() -> bool:
            said = [str(client.execute_command("CLUSTER INFO")) for client in clients]
            return all(("cluster_state" in text and "'ok'" in text) or "cluster_state:ok" in text for text in said) and all(
                f"cluster_known_nodes:{NODES}" in text or f"'cluster_known_nodes': '{NODES}'" in text for text in said
            )

        block_until(whole, timeout_s=30)
        yield nodes


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one of the nodes."""
    with nodes_of(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes[0].url


def start_worker(url: str, log: Path, hold: Path) -> subprocess.Popen[bytes]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_")}
    env |= {"PYTHONPATH": str(ROOT), HOLD: str(hold)}
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "statemq", "worker", "tests.integration.test_cluster", "--redis", url, "--lease-ms", "3000"],
            cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=end_with_parent(),
        )  # fmt: skip


async def deadlines(client: Client) -> list[int]:
    router = client._router
    leases = [PartitionKeys("statemq", "globe", p).lease for p in range(8)]
    return [int(await router.call(lease, "HGET", lease, "deadline")) for lease in leases]


@pytest.mark.quick
async def test_partitions_lie_on_all_nodes_and_everything_runs(cluster: str) -> None:
    router = await Router(cluster).open()
    try:
        assert router.cluster
        assert len(router.nodes) == NODES
        assert len({router.wire_for(PartitionKeys("statemq", "globe", p).lease) for p in range(8)}) == NODES
    finally:
        await router.close()
    keys = [f"key {n}" for n in range(40)]
    async with Client(cluster, machines=[Globe]) as client, working(cluster, "statemq", Globe, suspend_after_s=0.01):
        handles = await client.send_many([Globe.spin(key, times=3) for key in keys])
        assert [await handle.result(timeout=30) for handle in handles] == [3] * len(keys)
        naps = await client.send_many([Globe.nap(key) for key in keys])
        assert [await handle.result(timeout=30) for handle in naps] == keys
        late = await client.send(Globe.ping("a"), delay=0.05, idempotency_key="once")
        assert await late.result(timeout=30) == "a"
        await client.pause(Globe, "b")
        paused = await client.send(Globe.ping("b"))
        assert await client.call(Globe.ping("c"), timeout=30) == "c"
        await client.resume(Globe, "b")
        assert await paused.result(timeout=30) == "b"
        (machine,) = await client.machines()
        assert (machine.name, machine.waiting, machine.workers) == ("globe", 0, 1)
        assert len(await client.history(Globe, limit=1000)) == 2 * len(keys) + 3
        assert len(await client.partitions(Globe)) == 8
        # an entry added by hand to a partition on another node goes where it belongs
        home = partition_of("forwarded", 8)
        wrong = PartitionKeys("statemq", "globe", next(p for p in range(8) if p != home))
        await client._router.call(wrong.commands, "XADD", wrong.commands, "*", "key", "forwarded", "transition", "ping")

        async def forwarded() -> bool:
            return bool(await client.history(Globe, "forwarded"))

        await wait_until(forwarded)


@pytest.mark.parametrize("announced", ["unknown-endpoint", "hostname"])
async def test_nodes_that_announce_no_host_are_reached_by_that_of_who_answered(announced: str, tmp_path: Path) -> None:
    """CLUSTER SLOTS has null, or "?" where a host name is wanted and none is set; so have redirections, with an empty host or "?"."""
    with nodes_of(tmp_path, "--cluster-preferred-endpoint-type", announced) as nodes:
        url = f"redis://localhost:{nodes[1].port}"
        router = await Router(url).open()
        try:
            assert {wire.address.port for wire in router.nodes} == {node.port for node in nodes}
            assert {wire.address.host for wire in router.nodes} == {"localhost"}
            router._slots = [(0, SLOTS - 1, ("localhost", nodes[1].port))]  # as it may be for a moment: two in three are sent on
            keys = [f"{{{n}}}" for n in range(12)]
            assert await asyncio.gather(*(router.call(key, "SET", key, n, "EX", 60) for n, key in enumerate(keys))) == [b"OK"] * 12
            assert {wire.address.host for wire in router.nodes} == {"localhost"}
            assert await asyncio.gather(*(router.call(key, "GET", key) for key in keys)) == [b"%d" % n for n in range(12)]
        finally:
            await router.close()
        async with Client(url, machines=[Globe]) as client, working(url, "statemq", Globe):
            handles = await client.send_many([Globe.spin(f"key {n}", times=2) for n in range(20)])
            assert [await handle.result(timeout=30) for handle in handles] == [2] * 20


async def test_who_announces_nothing_is_where_the_answer_came_from(server: EmbeddedServer) -> None:
    """Not where the URL leads: nodes answer for one another."""
    router = await Router(server.url).open()
    try:
        by = Address("10.0.0.7", 7000)
        router.cluster, router._add = True, lambda node, where: router.home  # type: ignore[method-assign]
        for endpoint in (None, b"", b"?"):
            router._adopt([[0, SLOTS - 1, [endpoint, 7001, b"id", []], [b"10.0.0.8", 7002, b"id", []]]], by)
            assert router._slots == [(0, SLOTS - 1, ("10.0.0.7", 7001))]
    finally:
        router.cluster = False
        await router.close()


async def test_a_killed_worker_s_partitions_are_taken_over_at_once(cluster: str, tmp_path: Path) -> None:
    hold, log = tmp_path / "hold", tmp_path / "worker.log"
    hold.touch()
    (tmp_path / "log").touch()
    workers = [start_worker(cluster, log, hold) for _ in range(2)]
    try:
        async with Client(cluster, machines=[Globe]) as client:

            async def shared() -> bool:
                owners = [p.owner for p in await client.partitions(Globe)]
                return len(set(owners)) == 2 and "" not in owners

            await wait_until(shared, timeout_s=30)
            keys = [f"k{n}" for n in range(12)]
            handles = await client.send_many([Globe.hold(key) for key in keys])

            def begun() -> bool:
                lines = (tmp_path / "log").read_text().splitlines()
                return {f"begin {key}" for key in keys} <= set(lines)

            await wait_until(begun, timeout_s=30)
            owned = {p.owner for p in await client.partitions(Globe)}
            first = await deadlines(client)

            async def renewed() -> bool:
                return all(now > before for now, before in zip(await deadlines(client), first, strict=True))

            await wait_until(renewed, timeout_s=30)  # by then each has looked at the other many times and seen it alive (P5)
            workers[0].send_signal(signal.SIGKILL)
            workers[0].wait()

            async def taken() -> bool:
                return len({p.owner for p in await client.partitions(Globe)}) == 1

            await wait_until(taken, timeout_s=30)
            assert {p.owner for p in await client.partitions(Globe)} < owned
            hold.unlink()
            assert [await handle.result(timeout=30) for handle in handles] == [f"last {key}" for key in keys]
        lines = (tmp_path / "log").read_text().splitlines()
        for key in keys:
            assert lines.count(f"first {key}") == 1  # recorded steps are not run again
            assert lines.count(f"last {key}") == 1
        await wait_until(lambda: "which died" in log.read_text())
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
                worker.wait(20)


async def test_doctor_looks_at_every_node_and_mends_where_the_partition_lies(cluster: str) -> None:
    async with Client(cluster, machines=[Globe]) as client, working(cluster, "statemq", Globe):
        found = await examine(cluster, "statemq")
        assert len({line.where for line in found if line.check == "eviction"}) == NODES
        assert {line.level for line in found if line.where == "globe"} == {Level.ok}
        part = PartitionKeys("statemq", "globe", partition_of("a", 8))
        used_up = "18446744073709551615-18446744073709551615"
        await client._router.call(part.commands, "XADD", part.commands, used_up, "key", "a", "transition", "ping")

        async def drained() -> bool:
            return await client._router.call(part.commands, "XLEN", part.commands) == 0

        await wait_until(drained)
        found = await examine(cluster, "statemq", ["globe"], repair=True)
        assert [line.level for line in found if line.check == "repair"] == [Level.ok]
        assert await client.call(Globe.ping("a"), timeout=30) == "a"


async def test_old_function_libraries_are_removed_from_each_node(cluster: str) -> None:
    router = await Router(cluster).open()
    nodes = [Redis(host=node.address.host, port=node.address.port) for node in router.nodes]
    try:
        for node in nodes:
            node.function_load("#!lua name=statemq_0123456789ab\nredis.register_function('former', function() end)")
        look = Libraries(router, "none")
        await look.tidy(0)
        await look.tidy(KEEP_S)
        assert len(nodes) == NODES
        for node in nodes:
            assert not node.function_list("statemq_0123456789ab")
            assert node.function_list("statemq_*")
    finally:
        for node in nodes:
            node.close()
        await router.close()


async def test_a_node_that_refuses_keeps_no_other_from_losing_its_old_function_libraries(cluster: str) -> None:
    router = await Router(cluster).open()
    nodes = [Redis(host=node.address.host, port=node.address.port) for node in router.nodes]
    try:
        for node in nodes:
            node.function_load("#!lua name=statemq_0123456789ab\nredis.register_function('former', function() end)")
        look = Libraries(router, "none")
        nodes[0].acl_setuser("default", commands=["-function|list"])
        await look.tidy(0)
        await look.tidy(KEEP_S)
        for node in nodes[1:]:
            assert not node.function_list("statemq_0123456789ab")
    finally:
        nodes[0].acl_setuser("default", commands=["+function|list"])
        nodes[0].function_delete("statemq_0123456789ab")
        for node in nodes:
            node.close()
        await router.close()
