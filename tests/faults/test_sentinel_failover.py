"""Fault 18 with sentinels: they make a replica the primary, under load; statemq knows nothing but the sentinels and the service's name."""

from __future__ import annotations

import asyncio
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from redis import Redis, Sentinel
from redis.exceptions import RedisError

from statemq import Client
from statemq.errors import RedisAway
from statemq.server import EmbeddedServer
from statemq.server.binary import find_server
from statemq.server.host import free_port
from tests.chaos.conftest import Report
from tests.faults.crew import ENDS_WITHIN_S, Load, crew, goes_on, log_of
from tests.faults.tally import Tally
from tests.waiting import block_until, wait_until

SERVICE, SENTINELS, QUORUM = "shop", 3, 2
DOWN_AFTER_MS = 500


class Service:
    """Two servers, one of which follows the other, and who watches them."""

    def __init__(self, servers: list[EmbeddedServer], ports: list[int]) -> None:
        self.servers, self.ports = servers, ports

    @property
    def url(self) -> str:
        """One of its sentinels is not there: the others know."""
        return f"redis+sentinel://127.0.0.1:{free_port()}," + ",".join(f"127.0.0.1:{port}" for port in self.ports) + f"/{SERVICE}"

    def primary(self) -> EmbeddedServer | None:
        """As the sentinels say, all of them."""
        found = {at(port) for port in self.ports}
        return next((server for server in self.servers if found == {server.port}), None)

    def follows(self, server: EmbeddedServer, primary: EmbeddedServer) -> bool:
        try:
            with Redis.from_url(server.url, decode_responses=True) as redis:
                info = redis.info("replication")
        except RedisError:  # cut off when it became a replica
            return False
        return info["role"] == "slave" and info["master_port"] == primary.port and info["master_link_status"] == "up"

    def watched(self) -> bool:
        """Each sentinel knows the others and the replica, so they can agree on a failover."""
        for port in self.ports:
            with Redis(port=port, decode_responses=True) as redis:
                state = redis.sentinel_master(SERVICE)
            if state["num-other-sentinels"] != SENTINELS - 1 or state["num-slaves"] != 1:
                return False
        return True


def at(port: int) -> int | None:
    try:
        return int(Sentinel([("127.0.0.1", port)], sentinel_kwargs={"socket_timeout": 1}).discover_master(SERVICE)[1])
    except RedisError:
        return None


@contextmanager
def sentinel(folder: Path, primary: EmbeddedServer, *more: str) -> Iterator[int]:
    """A process that watches; its port."""
    folder.mkdir(parents=True)
    port, settings = free_port(), folder / "sentinel.conf"
    lines = [
        f"port {port}", "bind 127.0.0.1", f"dir {folder}", f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {QUORUM}",
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}", f"sentinel failover-timeout {SERVICE} 5000", *more,
    ]  # fmt: skip
    settings.write_text("\n".join(lines) + "\n")
    process = subprocess.Popen([find_server(), str(settings), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with ExitStack() as stack:
        words = ["--repl-diskless-sync-delay", "0", "--appendfsync", "always"]
        servers = [stack.enter_context(EmbeddedServer(tmp_path / str(n), config=words)) for n in range(2)]
        with Redis.from_url(servers[1].url) as redis:
            redis.replicaof("127.0.0.1", servers[0].port)
        ports = [stack.enter_context(sentinel(tmp_path / f"sentinel-{n}", servers[0])) for n in range(SENTINELS)]
        made = Service(servers, ports)
        block_until(lambda: made.follows(servers[1], servers[0]) and made.watched(), 30)
        yield made


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["kill", *(pytest.param(how, marks=pytest.mark.chaos) for how in ("asked", "kill", "hang"))])
async def test_f18_sentinels_make_the_replica_the_primary(service: Service, how: str, report: Report) -> None:
    """What had not been replicated is lost back to an earlier moment; nothing is mixed, and everybody finds the new primary."""
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    former, heir = service.servers
    async with Client(service.url, namespace=namespace) as client, crew(service.url, namespace):
        async with Load(client, every_s=0.02) as load:
            await load.more(5)
            if how == "kill":
                former.kill()
            elif how == "hang":
                former.pause()
            else:
                with Redis(port=service.ports[0]) as redis:
                    redis.sentinel_failover(SERVICE)
            await wait_until(lambda: service.primary() is heir, 60)
            took_s = await goes_on(client, time.monotonic())
            await load.more(5)
            if how == "kill":
                former.start()  # as a primary, until a sentinel tells it otherwise: nobody of ours asks it
            elif how == "hang":
                former.cont()
            await wait_until(lambda: service.follows(former, heir), 60)
            await load.more(5)
        lost = 0
        for key, handles in load.sent.items():
            outcomes = await asyncio.gather(*(handle.outcome(timeout=ENDS_WITHIN_S) for handle in handles), return_exceptions=True)
            log = await log_of(client, key)
            assert log == sorted(set(log)) and set(log) <= set(range(len(handles))), f"{key} is mixed: {log}"
            assert all(isinstance(o, BaseException) or o.outcome == "completed" for o in outcomes)
            lost += len(handles) - len(log)
    report(f"failover by sentinels ({how}): {load.total} commands, {lost} lost; back {took_s:.2f} s after they had agreed")


async def test_who_gets_no_primary_is_told_which_service(service: Service) -> None:
    with pytest.raises(RedisAway, match=r"no Redis answers at redis\+sentinel://127.0.0.1:\d+/cellar .*no sentinel knows cellar"):
        async with Client(f"redis+sentinel://user:secret@127.0.0.1:{service.ports[0]}/cellar"):
            pass


async def test_sentinels_and_servers_have_passwords_of_their_own(tmp_path: Path) -> None:
    more = (f"sentinel auth-pass {SERVICE} inner", "requirepass outer")
    with EmbeddedServer(tmp_path / "server") as server, sentinel(tmp_path / "sentinel", server, *more) as port:
        with Redis.from_url(server.url) as redis:
            redis.config_set("requirepass", "inner")
        url = f"redis+sentinel://:inner@127.0.0.1:{port}/{SERVICE}?sentinel_password="
        async with Client(url + "outer", machines=[Tally]) as client:
            assert (await client.get(Tally, "a")).version == 0
        with pytest.raises(RedisAway, match=rf"no Redis answers at redis\+sentinel://127.0.0.1:{port}/{SERVICE} \(.*password"):
            async with Client(url + "inner"):
                pass
