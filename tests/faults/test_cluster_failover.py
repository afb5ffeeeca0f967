"""Faults 18 and 20: a primary is followed by its replica, and a slot moves from node to node, under load; nobody restarts anything."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import ResponseError

from statemq import Client
from statemq.keys import PartitionKeys
from statemq.server import EmbeddedServer
from statemq.server.host import free_port
from statemq.worker.daemon import Worker
from tests.chaos.conftest import Report
from tests.faults.crew import ENDS_WITHIN_S, Load, crew, goes_on, log_of
from tests.faults.tally import Tally
from tests.waiting import block_until, wait_until

PRIMARIES, SLOTS = 3, 16384
NODE_TIMEOUT_MS = 1_000


class Cluster:
    """Three primaries; the first one has a replica. ``primary`` and ``replica``: of the first one's slots, whoever they are now."""

    def __init__(self, nodes: list[EmbeddedServer]) -> None:
        self.nodes = nodes
        self.primary, self.replica = nodes[0], nodes[PRIMARIES]

    @property
    def url(self) -> str:
        return self.nodes[1].url

    def ask(self, node: EmbeddedServer, *words: str | int) -> str:
        with Redis.from_url(node.url, decode_responses=True) as redis:
            return str(redis.execute_command(" ".join(map(str, words[:2])), *words[2:]))

    def id(self, node: EmbeddedServer) -> str:
        return self.ask(node, "CLUSTER", "MYID")

    def role(self, node: EmbeddedServer) -> str:
        with Redis.from_url(node.url, decode_responses=True) as redis:
            return str(redis.info("replication")["role"])

    def linked(self) -> bool:
        with Redis.from_url(self.replica.url, decode_responses=True) as redis:
            info = redis.info("replication")
            return info["role"] == "slave" and info["master_link_status"] == "up" and info["master_port"] == self.primary.port

    def holds(self, node: EmbeddedServer, slot: int) -> bool:
        """Whether this node itself says that the slot is its own."""
        with Redis.from_url(node.url, decode_responses=True) as redis:
            nodes = redis.execute_command("CLUSTER NODES")
        own = next(said for said in nodes.values() if "myself" in said["flags"])
        return any(int(r[0]) <= slot <= int(r[-1]) for r in own["slots"])

    def whole(self) -> bool:
        running = [node for node in self.nodes if node.running]
        texts = []
        for node in running:
            with Redis.from_url(node.url, decode_responses=True) as redis:
                info = redis.execute_command("CLUSTER INFO")
                texts.append(
                    info if isinstance(info, dict) else dict(line.split(":", 1) for line in str(info).split("\r\n") if ":" in line)
                )
        return all(t["cluster_state"] == "ok" and int(t["cluster_known_nodes"]) == len(self.nodes) for t in texts)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        nodes, buses = [], []
        for n in range(PRIMARIES + 1):
            buses.append(free_port())
            words = (
                "--cluster-enabled", "yes", "--cluster-port", str(buses[n]), "--cluster-config-file", "nodes.conf",
                "--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0",
            )  # fmt: skip
            nodes.append(stack.enter_context(EmbeddedServer(folder / str(n), config=words)))
        made = Cluster(nodes)
        for n, node in enumerate(nodes[:PRIMARIES]):
            made.ask(node, "CLUSTER", "ADDSLOTSRANGE", n * SLOTS // PRIMARIES, (n + 1) * SLOTS // PRIMARIES - 1)
        for node, bus in zip(nodes[1:], buses[1:], strict=True):
            made.ask(nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        block_until(made.whole, 30)
        made.ask(made.replica, "CLUSTER", "REPLICATE", made.id(made.primary))
        block_until(made.linked, 30)
        yield made


@pytest.mark.parametrize("how", ["kill", *(pytest.param(how, marks=pytest.mark.chaos) for how in ("", "FORCE", "TAKEOVER", "kill"))])
async def test_f18_a_primary_is_followed_by_its_replica(cluster: Cluster, how: str, report: Report) -> None:
    """What had not been replicated is lost back to an earlier moment; nothing is mixed, and the new node is found."""
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    doomed = f"redis://localhost:{cluster.primary.port}"  # the workers were given just that node, by another name than the cluster's
    async with Client(cluster.url, namespace=namespace) as client, crew(doomed, namespace) as workers:
        parts = [PartitionKeys(namespace, "tally", p) for p in range(Tally.spec.partitions)]
        async with Load(client, every_s=0.02) as load:
            await load.more(5)
            former, heir = cluster.primary, cluster.replica
            if how == "kill":
                former.kill()
            else:
                cluster.ask(heir, "CLUSTER", "FAILOVER", *how.split())
            await wait_until(lambda: cluster.role(heir) == "master" and cluster.whole(), 30)
            took_s = await goes_on(client, time.monotonic())
            cluster.primary, cluster.replica = heir, former
            await load.more(5)
            if how == "kill":
                former.start()
            await wait_until(cluster.linked, 30)
        lost = 0
        for key, handles in load.sent.items():
            outcomes = await asyncio.gather(*(handle.outcome(timeout=ENDS_WITHIN_S) for handle in handles), return_exceptions=True)
            log = await log_of(client, key)
            assert log == sorted(set(log)) and set(log) <= set(range(len(handles))), f"{key} tore: {log}"
            lost += len(handles) - len(log)
            assert all(isinstance(o, BaseException) or o.outcome == "completed" for o in outcomes)
        for worker in workers.workers:

            async def subscribed(worker: Worker = worker) -> bool:
                counts = [await client._router.call(p.lease, "PUBSUB", "SHARDNUMSUB", p.alive_channel(worker.id)) for p in parts]
                return all(n for _, n in counts)

            await wait_until(subscribed)
    report(f"failover ({how or 'by agreement'}): {load.total} commands, {lost} lost; back {took_s:.2f} s after it")


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("times", [10])
async def test_f20_a_partition_s_slot_moves_back_and_forth(cluster: Cluster, times: int, report: Report) -> None:
    """ASK while it moves, MOVED after it, TRYAGAIN while half of a script's keys are there: not executed, so all are sent again."""
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    async with Client(cluster.url, namespace=namespace) as client, crew(cluster.url, namespace):
        part = PartitionKeys(namespace, "tally", 0)
        slot = key_slot(part.lease.encode())
        holders = [node for node in cluster.nodes if node is not cluster.replica]
        async with Load(client, every_s=0.02) as load:
            for _ in range(times):
                await load.more(2)
                here = next(node for node in holders if cluster.holds(node, slot))
                there = next(node for node in holders if node is not here)
                await move(cluster, slot, here, there, load)
                await goes_on(client, time.monotonic())
            await load.more(2)
        await load.judge(client)
    report(f"a partition's slot moved {times} times under load: {load.total} commands, each once and in order")


async def move(cluster: Cluster, slot: int, here: EmbeddedServer, there: EmbeddedServer, load: Load) -> None:
    """Key by key, with a pause half way."""
    cluster.ask(there, "CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id(here))
    cluster.ask(here, "CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id(there))
    paused = False
    with Redis.from_url(here.url, decode_responses=True) as redis:
        while names := redis.execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
            redis.execute_command("MIGRATE", "127.0.0.1", there.port, names[0], 0, 5000)
            if not paused:
                paused = True
                await asyncio.sleep(0.3)
            await asyncio.sleep(0)
    for node in (there, here, *(n for n in cluster.nodes if n not in (here, there, cluster.replica))):
        try:
            cluster.ask(node, "CLUSTER", "SETSLOT", slot, "NODE", cluster.id(there))
        except ResponseError:  # keys that came back meanwhile
            await asyncio.sleep(0.01)
    await wait_until(lambda: cluster.holds(there, slot) and not cluster.holds(here, slot), 20)
