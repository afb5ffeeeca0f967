"""The function libraries of former versions are removed from the server when no worker uses them any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from statemq import Client, keys
from statemq.config import Role
from statemq.server import EmbeddedServer
from statemq.store import acl, libraries, scripts
from statemq.store.libraries import KEEP_S, Libraries
from statemq.store.router import Router
from statemq.store.scripts import Library, joined, library, sources
from statemq.store.wire import _pack
from statemq.worker import daemon
from tests.integration.box import Box
from tests.waiting import wait_until
from tests.working import working

OTHER_APP = "#!lua name=statemq_tools\nredis.register_function('tool', function() return 1 end)"


def version(n: int) -> Library:
    """The scripts of another version: the same, with a remark."""
    files = sources(shared=True)
    return joined(files | {"load": f"{files['load']}-- version {n}\n"})


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("libraries"), appendonly=False) as server:
        yield server


@pytest.fixture
def admin(own: EmbeddedServer) -> Iterator[Redis]:
    with Redis(port=own.port, decode_responses=True) as opened:
        yield opened


@asynccontextmanager
async def former(url: str, n: int, namespace: str = "shop") -> AsyncIterator[Any]:
    """A worker of another version; what starts after it is of this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripts, "library", lambda: version(n))
        patch.setattr(daemon, "library", lambda: version(n))
        async with working(url, namespace, Box) as worker:
            patch.undo()
            yield worker


def there(admin: Redis) -> set[str]:
    return {dict(zip(row[::2], row[1::2], strict=True))["library_name"] for row in admin.function_list()}


@asynccontextmanager
async def looking(url: str, namespace: str = "shop") -> AsyncIterator[Libraries]:
    router = await Router(url).open()
    try:
        yield Libraries(router, namespace)
    finally:
        await router.close()


async def test_a_library_that_no_worker_uses_any_more_is_removed_after_a_while(own: EmbeddedServer, admin: Redis) -> None:
    admin.function_load(OTHER_APP)
    mine, old = library().name, version(1).name
    async with looking(own.url) as look:
        async with former(own.url, 1):
            await look.tidy(0)
            await look.tidy(KEEP_S)
            assert there(admin) == {mine, old, "statemq_tools"}, "a worker uses it"
        await look.tidy(KEEP_S + 1)
        async with former(own.url, 1):
            await look.tidy(2 * KEEP_S)  # a rollback: it counts anew
        await look.tidy(2 * KEEP_S + 1)
        await look.tidy(3 * KEEP_S)
        assert there(admin) == {mine, old, "statemq_tools"}
        await look.tidy(3 * KEEP_S + 1)
        assert there(admin) == {mine, "statemq_tools"}, "nobody has used it for as long as it is kept"


async def test_who_needs_what_was_removed_loads_it_again_and_then_it_stays(own: EmbeddedServer, admin: Redis) -> None:
    """Another namespace's worker, which this one cannot hear of."""
    mine, old = library().name, version(2).name
    async with looking(own.url) as look, Client(own.url, namespace="other", machines=[Box]) as client, former(own.url, 2, "other"):
        assert await client.call(Box.put("a"), timeout=20) == 1
        await look.tidy(0)
        await look.tidy(KEEP_S)
        await wait_until(lambda: old in there(admin))  # its renewals have loaded it again
        assert await client.call(Box.put("a"), timeout=20) == 2
        await look.tidy(2 * KEEP_S)
        await look.tidy(9 * KEEP_S)
        assert there(admin) == {mine, old}
        assert await client.call(Box.put("a"), timeout=20) == 3


async def test_a_client_that_may_load_none_goes_on_by_hashes(own: EmbeddedServer, admin: Redis) -> None:
    rule = acl.rule(Role.client, "shop").split()
    admin.execute_command("ACL", "SETUSER", "caller", "reset", "on", ">secret", *rule)
    async with former(own.url, 3), looking(own.url) as look:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scripts, "library", lambda: version(4))
            admin.function_load(version(4).source)
            caller = await Client(own.url.replace("redis://", "redis://caller:secret@"), namespace="shop", machines=[Box]).connect()
        try:
            assert await caller.call(Box.put("a"), timeout=20) == 1
            await look.tidy(0)
            await look.tidy(KEEP_S)
            assert version(4).name not in there(admin)
            assert await caller.call(Box.put("a"), timeout=20) == 2
        finally:
            await caller.close()


async def test_a_worker_that_does_not_say_which_it_uses_keeps_all(
    own: EmbeddedServer, admin: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.function_load(version(5).source)
    about = daemon.Worker._about
    monkeypatch.setattr(daemon.Worker, "_about", lambda worker: {k: v for k, v in about(worker).items() if k != "library"})
    async with looking(own.url) as look:
        async with working(own.url, "shop", Box):
            await look.tidy(0)
            await look.tidy(KEEP_S)
            assert version(5).name in there(admin)
        await look.tidy(KEEP_S)
        await look.tidy(2 * KEEP_S)
        assert version(5).name not in there(admin)


async def test_who_may_not_remove_them_does_not_try_again(own: EmbeddedServer, admin: Redis) -> None:
    admin.function_load(version(6).source)
    rule = [*acl.rule(Role.worker, "shop").split(), "+function|list"]  # a former version's rule, and less
    admin.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">secret", *rule)
    admin.acl_log_reset()
    async with looking(own.url.replace("redis://", "redis://worker:secret@")) as look:
        for n in range(5):
            await look.tidy(n * KEEP_S)
    assert version(6).name in there(admin)
    assert {row["object"]: row["count"] for row in admin.acl_log()} == {"function|delete": 1, "acl|users": 1}


def changed(admin: Redis) -> None:
    """Somebody has put another text under the name of the library: each of its functions leaves a word and does nothing."""
    text = library().source
    names = [name.split("'")[0] for name in text.split("function_name='")[1:]]
    evil = "".join(f"redis.register_function('{n}', function() redis.call('SET', 'ran', '{n}') return 'accepted' end)\n" for n in names)
    admin.execute_command("FUNCTION", "LOAD", "REPLACE", f"#!lua name={library().name}\n{evil}")


async def test_a_changed_library_is_not_called(own: EmbeddedServer, admin: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever comes while it stands there finds another text under the name, and runs its own by hash."""
    changed(admin)
    async with working(own.url, "shop", Box), Client(own.url, namespace="shop", machines=[Box]) as client:
        assert await client.call(Box.put("a"), timeout=20) == 1
    assert not admin.exists("ran")
    assert "somebody has changed the function library" in caplog.text


async def test_a_library_that_is_changed_later_is_noticed(own: EmbeddedServer, admin: Redis, caplog: pytest.LogCaptureFixture) -> None:
    async with looking(own.url) as look:
        changed(admin)
        await look.tidy(0)
        await look._router.home.connected(20)
        node = look._router.home
        await wait_until(lambda: look._router.scripts_of(node).by_hash)
    assert "somebody has changed the function library" in caplog.text


@pytest.mark.parametrize("users", ["here", "there"])
async def test_a_call_that_is_sent_on_is_worded_for_the_node_that_gets_it(
    own: EmbeddedServer, admin: Redis, tmp_path: Path, users: str
) -> None:
    """Users are a node's own: one node of a cluster is called by functions, another by hashes, and a slot moves between them. The call that
    came to the wrong one was sent on as it was, and held up all that went to the other."""
    with EmbeddedServer(tmp_path) as other:
        first, second = (own.url, other.url) if users == "here" else (other.url, own.url)
        admin.execute_command("ACL", "SETUSER", "bob", "on", ">secret", "~*", "+@all")
        router = await Router(first).open()
        try:
            port = int(second.rpartition(":")[2])
            there = router._add(("127.0.0.1", port), router.address.at("127.0.0.1", port))
            await there.connected(20)
            assert router.scripts_of(router.home).by_hash != router.scripts_of(there).by_hash
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            names = [keys.workers("shop", "box"), keys.workers_about("shop", "box")]
            call = (*router.scripts_of(router.home).command("beat"), 2, *names, "w", "{}", 3500, 3_600_000, "", "news")
            router._moved(_pack(call), answer, f"MOVED 1 127.0.0.1:{port}")
            assert await asyncio.wait_for(answer, 20) == [b"w"]
        finally:
            await router.close()


@pytest.mark.parametrize("role", ["admin", "worker"])
async def test_another_namespaces_login_cannot_change_what_runs(own: EmbeddedServer, admin: Redis, role: str) -> None:
    """A login of a former rule may load functions. It changes them under those who are connected: they do not call them."""
    there = [*acl.rule(Role.worker, "there").split(), "+function|load", "+function|list", "+fcall", "+function|delete"]
    admin.execute_command("ACL", "SETUSER", "stranger", "reset", "on", ">secret", *there)
    admin.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">secret", *acl.rule(Role.worker, "shop").split())
    url = own.url if role == "admin" else own.url.replace("redis://", "redis://worker:secret@")
    async with working(url, "shop", Box), Client(own.url, namespace="shop", machines=[Box]) as client:
        assert await client.call(Box.put("a"), timeout=20) == 1
        with Redis.from_url(own.url.replace("redis://", "redis://stranger:secret@"), decode_responses=True) as stranger:
            changed(stranger)
        assert await client.call(Box.put("a"), timeout=20) == 2
    assert not admin.exists("ran")


async def test_workers_look_after_them(own: EmbeddedServer, admin: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "EVERY_S", 0.05)
    monkeypatch.setattr(libraries, "KEEP_S", 0.1)
    admin.function_load(version(7).source)
    async with working(own.url, "shop", Box), working(own.url, "there", Box):
        await wait_until(lambda: there(admin) == {library().name})
