"""Least privilege (S12): each role works as a user with exactly the rule that ``statemq acl`` prints, and uses all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from statemq import Client, Machine
from statemq.config import Role, Share, WorkerSettings
from statemq.doctor.examine import examine
from statemq.errors import UnsupportedServer, UsageError
from statemq.keys import PartitionKeys, partition_of
from statemq.server import EmbeddedServer
from statemq.store import acl, libraries
from statemq.store.audit import permitted
from statemq.store.draft import SHARE
from statemq.store.durability import parse
from statemq.store.router import Router
from statemq.store.wire import ReplyError
from statemq.worker import sweep
from statemq.worker.daemon import Worker
from tests.contents import content
from tests.integration import box
from tests.integration.box import Box
from tests.integration.monitor import monitoring
from tests.integration.races.stage import Stage, stage
from tests.other_server import takes_waitaof
from tests.waiting import wait_until
from tests.working import working

NAMESPACE = "shop"
PARTS = [PartitionKeys(NAMESPACE, "box", p) for p in range(2)]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(Path(tmp_path_factory.mktemp("own"))) as server:
        yield server


@pytest.fixture
def admin(own: EmbeddedServer) -> Iterator[Redis]:
    with Redis(port=own.port, db=1, decode_responses=True) as opened:
        opened.flushall()
        opened.function_flush()
        opened.script_flush()
        opened.acl_log_reset()
        yield opened


def grant(admin: Redis, own: EmbeddedServer, role: Role, *, without: str = "", **how: Any) -> str:
    """The URL of a user with this role's rule, in database 1."""
    words = acl.rule(role, NAMESPACE, **how).split()
    admin.execute_command("ACL", "SETUSER", role.value, "reset", "on", ">secret", *(w for w in words if w != f"+{without}"))
    return f"{own.url.replace('redis://', f'redis://{role.value}:secret@')}/1"


def denials(admin: Redis) -> set[tuple[Role, str]]:
    """User and what was refused."""
    return {(Role(row["username"]), row["object"]) for row in admin.acl_log(128) if row["username"] in set(Role)}


ALWAYS = {"auth"}
"""Needs no right."""

ASKED = {"acl|users"}
"""What each connection asks first; who may not know it calls the scripts by their hashes."""

USED_UP = "18446744073709551615-18446744073709551615"


class People:
    """A client, an operator and a reader, and where they look."""

    def __init__(self, client: Client, operator: Client, reader: Client, urls: dict[Role, str], admin: Redis) -> None:
        self.client, self.operator, self.reader, self.urls, self.admin = client, operator, reader, urls, admin

    async def work(self) -> None:
        """What they do in a day, beside a worker; returns when all has ended."""
        client, operator = self.client, self.operator
        assert await client.call(Box.put("a"), timeout=20) == 1
        assert await client.call("box", "a", "step", {"sleep": 0.05}, timeout=20)
        late = await client.send(Box.put("b"), delay=0.05, idempotency_key="once")
        assert (await client.send(Box.put("b"), delay=0.05, idempotency_key="once")).id == late.id
        assert await client.handle(late.id).result(timeout=20) == 1
        SHARE.set(Share("caller", 10, 10_000))
        for n in (1, 2):  # the second one finds that the first one has ended
            counted = await client.send(Box.put("counted"), delay=0.01)
            assert await counted.result(timeout=20) == n
        SHARE.set(None)
        await self._queues()
        await operator.pause(Box, "d")
        held = await client.send(Box.put("d"))
        await operator.resume(Box, "d")
        assert await held.result(timeout=20) == 1
        await operator.pause(Box)
        await operator.resume(Box)
        running = await client.send(Box.hold("a"))
        await wait_until(lambda: self.admin.exists(PARTS[partition_of("a", 2)].steps(running.id)))
        assert await operator.cancel(running.id) == "asked"
        assert (await running.outcome(timeout=20)).outcome == "cancelled"
        for then in ("fail", "fail" + " at length" * 1000):  # dead letters as large as this are counted in bytes
            failing = await client.send(Box.gated("a", then=then), idempotency_key=then[:9])
            assert (await failing.outcome(timeout=20)).outcome == "failed"
        [id] = await operator.failed_retry(Box, [(await operator.failed(Box))[0].letter])
        assert (await client.handle(id).outcome(timeout=20)).outcome == "failed"
        assert await operator.failed_discard(Box) == 2

    async def _queues(self) -> None:
        """A busy key: behind what runs two are read ahead and the others parked; some of all are cancelled."""
        box.gate = asyncio.Event()
        first = await self.client.send(Box.gated("c"))
        await wait_until(lambda: box.ran["c"])
        behind = await self.client.send_many([Box.gated("c") if n == 2 else Box.put("c") for n in range(8)])
        await wait_until(lambda: self.admin.llen(PARTS[partition_of("c", 2)].inbox("c")) == 6)
        delayed = await self.client.send(Box.put("a"), delay=60, idempotency_key="later")
        await self.look()
        for handle in (behind[0], behind[3], behind[7], delayed):
            assert await self.operator.cancel(handle.id) == "cancelled"
        assert (await self.client.handle(first.id).status()).status == "running"
        begun, box.gate = box.gate, asyncio.Event()
        begun.set()
        await wait_until(lambda: self._runs(behind[2].id))  # from its inbox
        box.gate.set()
        assert [await behind[n].result(timeout=20) for n in (1, 2, 4, 5, 6)] == [1, None, 2, 3, 4]

    async def _runs(self, id: str) -> bool:
        return (await self.reader.show(id)).status == "running"

    async def look(self) -> None:
        """All there is to see."""
        reader = self.reader
        await reader.machines()
        await reader.get("box", "a")
        await reader.list("box")
        await reader.list("box", state="open", older=0)
        rows = await reader.queue("box")
        assert {row.where for row in rows} == {"stream", "inbox", "timer"}
        assert {(await reader.show(row.id)).id for row in rows} == {row.id for row in rows}
        await reader.queue("box", "c")
        await reader.history("box")
        await reader.history("box", "a")
        await reader.failed("box")
        await reader.partitions("box")
        await reader.workers()
        await reader.live_workers("box")
        await reader.can("box", "a", "put")
        await reader.graph("box")
        found = await examine(self.urls[Role.reader], NAMESPACE)
        assert not [finding for finding in found if finding.check == "rights" or finding.level == "bad"]

    async def mend(self) -> None:
        """An entry of the far future uses up a stream's ids; the operator mends it."""
        part = PARTS[partition_of("a", 2)]
        self.admin.xadd(part.commands, {"key": "a", "transition": "put"}, id=USED_UP)
        await wait_until(lambda: not self.admin.xlen(part.commands))
        found = await examine(self.urls[Role.operator], NAMESPACE, repair=True)
        assert [(f.level, f.text) for f in found if f.check == "repair"] == [
            ("ok", f"partition {part.number} takes commands again: its used-up stream was deleted, and its owner begins anew")
        ]
        assert await self.client.call(Box.put("a"), timeout=20)


async def scripts(play: Stage) -> None:
    """Calls of a worker that take a race to come about: an older command is parked behind a younger one."""
    await play.send("a", 1, 2)
    one, two = play.queued()
    fence = await play.own()
    await fence.answer(fence.park({"a": [two]}, {"a": True}))
    await fence.answer(fence.park({"a": [one]}, {"a": True}))
    assert play.inbox("a") == [one.id, two.id]


async def test_each_role_uses_all_of_its_rule_and_nothing_else(own: EmbeddedServer, admin: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "EVERY_S", 0.05)
    monkeypatch.setattr(sweep, "GONE_MS", -1)
    monkeypatch.setattr(libraries, "EVERY_S", 0.05)
    monkeypatch.setattr(libraries, "KEEP_S", 0.0)
    box.ran.clear()
    urls = {role: grant(admin, own, role) for role in Role}
    with monitoring(own.port) as monitor:

        async def sends(role: Role, name: str) -> bool:
            return name in monitor.used()[role.value]

        async with (
            Client(urls[Role.client], namespace=NAMESPACE, machines=[Box]) as client,  # comes first: it declares, and no function is there
            Client(urls[Role.operator], namespace=NAMESPACE) as operator,
            Client(urls[Role.reader], namespace=NAMESPACE) as reader,
        ):
            people = People(client, operator, reader, urls, admin)
            async with working(urls[Role.worker], NAMESPACE, Box, suspend_after_s=0.001, read_ahead=2, lease_ms=1000):
                await people.work()
                if not any(group["name"] == "workers" for group in admin.xinfo_groups(PARTS[0].commands)):
                    admin.xgroup_create(PARTS[0].commands, "workers", id="0")
                for name in ("gone", "gone too"):  # workers that died long ago
                    admin.xgroup_createconsumer(PARTS[0].commands, "workers", name)
                await wait_until(lambda: sends(Role.worker, "xgroup|delconsumer"))
                await people.mend()
                async with second(urls[Role.worker]):
                    await wait_until(lambda: sends(Role.worker, "pubsub|shardnumsub"))
                async with stage(urls[Role.worker], NAMESPACE) as play:
                    await scripts(play)
                denied = denials(admin)
                # another namespace's backup was put here, without its config: the worker asks what there is
                admin.delete(f"{NAMESPACE}:{{box}}:config")
                admin.hset(PARTS[0].lease, mapping={"token": "", "incarnation": "another"})
                await wait_until(lambda: sends(Role.worker, "smembers"), timeout_s=30)
        used = monitor.used()
    assert set(used) >= {role.value for role in Role}
    below: set[str] = set()
    for role in Role:
        mine = used[role.value] - ALWAYS
        listed = set(acl.commands(role))
        assert mine <= listed
        below = mine if role is Role.worker else below | mine
        assert below == listed, f"{role} has rights that nothing of it uses"
    asked = {(role, name) for role in Role for name in ASKED}
    stages = {(Role.worker, "client|setinfo")}  # the test's own library
    tidies = {(Role.worker, "function|list")}  # a worker removes what former versions have loaded where it may
    assert denied - stages - tidies == asked | {(Role.reader, "script|load"), (Role.reader, "config|get"), (Role.operator, "config|get")}


@asynccontextmanager
async def second(url: str) -> AsyncIterator[None]:
    """One more worker: each looks whether the other lives."""
    worker = Worker([Box], url, namespace=NAMESPACE)
    running = asyncio.ensure_future(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await running


@pytest.mark.parametrize("level", ["fsync", "replicas=1"])
async def test_a_client_that_waits_for_disk_or_replicas_has_a_rule_too(own: EmbeddedServer, admin: Redis, level: str) -> None:
    if level == "fsync":
        takes_waitaof(own.url)
    plain, rule = (set(acl.commands(Role.client, durability=parse(text))) for text in (None, level))
    assert rule - plain == {"waitaof" if level == "fsync" else "wait"}
    url = grant(admin, own, Role.client, durability=parse(level))
    with monitoring(own.port) as monitor:
        async with working(own.url + "/1", NAMESPACE, Box), Client(url, namespace=NAMESPACE, machines=[Box], durability=level) as client:
            sent = asyncio.ensure_future(client.send(Box.put("a")))  # with replicas=1 it waits for ever: there is none

            async def waits() -> bool:
                return ("waitaof" if level == "fsync" else "wait") in monitor.used()["client"]

            await wait_until(waits)
            if level == "fsync":
                async with Client(url, namespace=NAMESPACE, durability=level) as other:  # which has to ask
                    assert (await other.handle((await sent).id).outcome(timeout=20)).outcome == "completed"
            sent.cancel()
    assert {name for _, name in denials(admin)} <= ASKED


@pytest.mark.quick
@pytest.mark.parametrize("role", list(Role))
async def test_nothing_else_is_allowed(own: EmbeddedServer, admin: Redis, role: Role) -> None:
    url = grant(admin, own, role)
    admin.set("other", "1")
    admin.hset("shop2:{box:0}:lease", "token", "t")
    with Redis.from_url(url, decode_responses=True) as redis:
        refused: list[tuple[Any, ...]] = [
            ("SET", "other", "1"),
            ("SET", f"{NAMESPACE}:x", "1"),
            ("HGETALL", "other"),
            ("HGETALL", "shop2:{box:0}:lease"),
            ("FLUSHALL",),
            ("FLUSHDB",),
            ("CONFIG", "GET", "*"),
            ("CONFIG", "SET", "dir", "/"),
            ("KEYS", "*"),
            ("SCAN", "0"),
            ("ACL", "LIST"),
            ("CLIENT", "LIST"),
            ("MONITOR",),
            ("FUNCTION", "FLUSH"),
            ("SCRIPT", "FLUSH"),
            ("EVAL", "return 1", "0"),
            ("XGROUP", "DESTROY", f"{NAMESPACE}:{{box:0}}:commands", "workers"),
            ("SUBSCRIBE", "other:news"),
            ("SUBSCRIBE", "shop2:reply:x"),
            ("PUBLISH", "shop2:reply:x", "[]"),
        ]
        refused.append(("FUNCTION", "LOAD", "REPLACE", "#!lua name=x\nredis.register_function('x', function() end)"))
        if role is Role.reader:
            refused += [
                ("HSET", f"{NAMESPACE}:{{box:0}}:lease", "token", "x"),
                ("DEL", f"{NAMESPACE}:machines"),
                ("XADD", f"{NAMESPACE}:{{box:0}}:commands", "*", "key", "a"),
                ("FCALL", "x", "0"),
                ("EVALSHA", "0" * 40, "0"),
                ("SUBSCRIBE", f"{NAMESPACE}:reply:x"),
            ]
        if role is Role.client:
            refused += [
                ("XDEL", f"{NAMESPACE}:{{box:0}}:failed", "1-1"),
                ("PUBLISH", f"{NAMESPACE}:{{box}}:news", "released 0"),
                ("SUBSCRIBE", f"{NAMESPACE}:{{box}}:news"),
            ]
        for words in refused:
            with pytest.raises(NoPermissionError):
                redis.execute_command(*words)
    assert admin.get("other") == "1"


REFUSED = {"command": ("a", "~*", "&*", "-del"), "key": ("other", "~a", "&*", ""), "channel": ("a", "~*", "resetchannels", "")}


@pytest.mark.parametrize("what", sorted(REFUSED))
@pytest.mark.parametrize("how", ["call", "pcall"])
async def test_what_a_user_may_not_within_a_script_is_said_as_outside(own: EmbeddedServer, admin: Redis, what: str, how: str) -> None:
    """Redis 7.0 says it in other words than later ones, and none of them by its word."""
    key, keys, channels, less = REFUSED[what]
    admin.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">p", "+@all", keys, channels, *([less] if less else []))
    router = await Router(own.url.replace("redis://", "redis://limited:p@")).open()
    try:
        said = f"return redis.{how}('PUBLISH', 'news', '1')" if what == "channel" else f"return redis.{how}('DEL', '{key}')"
        with pytest.raises(ReplyError) as error:
            await router.home.call("EVAL", said, 0)
        assert error.value.word == "NOPERM", error.value.message
        with pytest.raises(UnsupportedServer, match="this user of Redis may not cancel: that takes the rule of `statemq acl operator`"):
            await permitted("cancel", router.home.call("EVAL", said, 0))
    finally:
        await router.close()


class Undeclared(Machine[None], initial="idle"):
    pass


async def test_who_may_run_no_scripts_reads_and_is_told_so_when_it_writes(own: EmbeddedServer, admin: Redis) -> None:
    url = grant(admin, own, Role.reader)
    async with Client(own.url + "/1", namespace=NAMESPACE, machines=[Box]):
        pass
    async with Client(url, namespace=NAMESPACE, machines=[Box]) as knows:  # a class need not be declared again
        assert (await knows.can(Box, "a", "put")).guards
        with pytest.raises(UnsupportedServer, match="allows neither functions"):
            await knows.get(Undeclared, "a")
    async with Client(url, namespace=NAMESPACE) as reader:
        assert (await reader.get("box", "a")).version == 0
        with pytest.raises(UnsupportedServer, match="may not pause: that takes the rule of `statemq acl operator`"):
            await reader.pause("box", "a")
        with pytest.raises(UnsupportedServer, match=r"allows neither functions .* nor scripts .*NOPERM"):
            await reader.call("box", "a", "put", timeout=5)
        assert (await reader.get("box", "a")).version == 0
    with pytest.raises(UnsupportedServer, match="allows neither functions"):
        await Worker([Box], url, namespace=NAMESPACE, settings=WorkerSettings()).run()


def kept(admin: Redis) -> dict[str, Any]:
    """All keys of the namespace with what is in them; but for what changes by itself while a worker lives."""
    with Redis.from_url(f"redis://localhost:{admin.connection_pool.connection_kwargs['port']}/1") as raw:
        return {name: content(raw, name) for name in sorted(raw.scan_iter(f"{NAMESPACE}:*"))}


async def _to_operate_on(admin: Redis, url: str) -> tuple[str, str, str]:
    """A command that waits, one that has begun, and a dead letter; nobody works any more."""
    box.gate = asyncio.Event()
    box.gate.set()
    async with Client(url, namespace=NAMESPACE, machines=[Box]) as client:
        async with working(url, NAMESPACE, Box, grace_s=0):
            failing = await client.send(Box.gated("b", then="fail"))
            assert (await failing.outcome(timeout=20)).outcome == "failed"
            begun = await client.send(Box.hold("a"))
            await wait_until(lambda: admin.exists(PARTS[partition_of("a", 2)].steps(begun.id)))
        waits = await client.send(Box.put("c"))
        return waits.id, begun.id, (await client.failed(Box))[0].letter


VERBS = {
    "cancel a waiting one": lambda c, waits, begun, letter: c.cancel(waits),
    "cancel a begun one": lambda c, waits, begun, letter: c.cancel(begun),
    "pause": lambda c, waits, begun, letter: c.pause(Box),
    "pause an instance": lambda c, waits, begun, letter: c.pause(Box, "a"),
    "resume": lambda c, waits, begun, letter: c.resume(Box),
    "resume an instance": lambda c, waits, begun, letter: c.resume(Box, "a"),
    "retry": lambda c, waits, begun, letter: c.failed_retry(Box, [letter]),
    "retry all": lambda c, waits, begun, letter: c.failed_retry(Box),
    "discard": lambda c, waits, begun, letter: c.failed_discard(Box, [letter]),
    "discard all": lambda c, waits, begun, letter: c.failed_discard(Box),
}


async def test_what_a_client_may_not_do_has_not_been_done_in_part(own: EmbeddedServer, admin: Redis) -> None:
    found = await _to_operate_on(admin, own.url + "/1")
    url = grant(admin, own, Role.client)
    async with Client(url, namespace=NAMESPACE, machines=[Box]) as client:
        before = kept(admin)
        for name, doing in VERBS.items():
            did = name.split()[0]
            with pytest.raises(UnsupportedServer, match=f"may not {did}: that takes the rule of `statemq acl operator`"):
                await doing(client, *found)
            assert kept(admin) == before, name


@pytest.mark.parametrize("without", ["hdel", "publish", "xadd", "xdel", "zrem", "hset", "zadd", "unlink", "lindex", "pexpire"])
async def test_an_operator_who_lacks_one_right_does_all_of_a_thing_or_nothing(own: EmbeddedServer, admin: Redis, without: str) -> None:
    found = await _to_operate_on(admin, own.url + "/1")
    url = grant(admin, own, Role.operator, without=without)
    async with Client(url, namespace=NAMESPACE) as client:
        for name, doing in VERBS.items():
            before = kept(admin)
            try:
                await doing(client, *found)
            except UnsupportedServer:
                assert kept(admin) == before, name
            except UsageError as gone:  # the letter that a verb before has taken
                assert "no dead letter" in str(gone)
