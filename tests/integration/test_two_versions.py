"""Two versions of a machine's class serve one namespace, as they do during every deployment and every rollback."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import redis as redis_py

from statemq import Client, Context, Machine, StatemqError, transition
from statemq.server import EmbeddedServer
from tests.working import working


class Line(msgspec.Struct):
    sku: str = ""


class NewLine(msgspec.Struct):
    sku: str = ""
    tax: int = 0


class OldData(msgspec.Struct):
    n: int = 0
    lines: list[Line] = []


class NewData(msgspec.Struct):
    n: int = 0
    lines: list[NewLine] = []
    address: str = ""


class Old(Machine[OldData, str], initial="on", partitions=1, name="acct"):
    @transition(source="on")
    def look(self) -> str:
        return "nothing to do"

    @transition(source="on")
    def add(self, fails: bool = False) -> int:
        self.data.n += 1
        self.data.lines.append(Line("own"))
        if fails:
            raise OSError("once more")
        return self.data.n

    @transition(source="on")
    async def slowly(self, ctx: Context) -> int:
        self.data.n += await ctx.step("ten", int, "10", returns=int)
        self.data.lines.pop(0)
        return self.data.n

    @transition(source="on", target="on")
    def again(self) -> None: ...


class New(Machine[NewData, str], initial="on", partitions=1, name="acct"):
    @transition(source="on")
    def move(self, to: str) -> None:
        self.data.address = to
        self.data.lines = [NewLine("a", 7), NewLine("b", 19)]


def stored(server: EmbeddedServer, namespace: str, key: str = "k") -> tuple[dict[str, Any], int]:
    with redis_py.Redis(port=server.port, decode_responses=True) as redis:
        row = redis.hgetall(f"{namespace}:{{acct:0}}:instance:{key}")
    return json.loads(row["data"]), int(row["version"])


async def test_an_older_worker_keeps_what_a_newer_one_wrote(server: EmbeddedServer, url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace, machines=[New]) as client, working(url, namespace, New):
        await client.call(New.move("k", to="Paris"))
    before = stored(server, namespace)
    async with Client(url, namespace=namespace, machines=[Old]) as client:
        async with working(url, namespace, Old):
            assert await client.call(Old.look("k")) == "nothing to do"
            assert stored(server, namespace) == before, "a no-op changes nothing, and makes no version"
            assert await client.call(Old.add("k")) == 1
            assert await client.call(Old.look("k")) == "nothing to do"
        tax = [{"sku": "a", "tax": 7}, {"sku": "b", "tax": 19}]
        assert stored(server, namespace) == ({"n": 1, "lines": [*tax, {"sku": "own"}], "address": "Paris"}, 2)
        async with working(url, namespace, Old):  # read anew, and one upon the other without a read
            handles = [await client.send(command) for command in (Old.slowly("k"), Old.again("k"), Old.look("k"), Old.add("k"))]
            assert [await handle.result() for handle in handles] == [11, None, "nothing to do", 12]
    assert stored(server, namespace) == (
        {"n": 12, "lines": [{"sku": "b", "tax": 19}, {"sku": "own"}, {"sku": "own"}], "address": "Paris"},
        5,
    )


async def test_what_an_attempt_that_raised_has_changed_is_not_kept_beside_it(server: EmbeddedServer, url: str, namespace: str) -> None:
    """P12 holds for data of another version, too."""
    async with Client(url, namespace=namespace, machines=[New]) as client, working(url, namespace, New):
        await client.call(New.move("k", to="Paris"))
    before = stored(server, namespace)
    async with Client(url, namespace=namespace, machines=[Old]) as client, working(url, namespace, Old):
        failing = await client.send(Old.add("k", fails=True))
        await client.send(Old.look("k"))
        assert (await client.get(Old, "k")).version == before[1]
        await failing.cancel()
        assert await client.call(Old.add("k")) == 1
    data, version = stored(server, namespace)
    assert (data["n"], len(data["lines"]), data["address"], version) == (1, 3, "Paris", before[1] + 1)


class Unordered(msgspec.Struct):
    tags: set[str] = set()
    rate: float = 0.0
    more: dict[str, int] = {}


class Tags(Machine[Unordered, str], initial="on", partitions=1, name="acct"):
    @transition(source="on")
    def look(self) -> None: ...

    @transition(source="on")
    def same(self) -> None:
        self.data.tags = set(self.data.tags)
        self.data.more = dict(reversed(self.data.more.items()))
        self.data.rate = int(self.data.rate)


async def test_a_no_op_is_one_whatever_the_former_encoding(server: EmbeddedServer, url: str, namespace: str) -> None:
    tags = json.dumps([f"tag-{i}" for i in range(12)])
    data = f'{{ "more": {{"b": 1, "a": 2}}, "rate": 1, "tags": {tags} }}'
    async with Client(url, namespace=namespace, machines=[Tags]) as client:
        with redis_py.Redis(port=server.port) as redis:
            redis.hset(f"{namespace}:{{acct:0}}:instance:k", mapping={"state": "on", "version": 3, "entered": 1, "data": data})
        async with working(url, namespace, Tags):
            for command in (Tags.look("k"), Tags.same("k"), Tags.look("k")):
                await client.call(command)
            assert (await client.get(Tags, "k")).version == 3
            assert {entry.version for entry in await client.history(Tags, "k")} == {3}


class Other(Machine[OldData, str], initial="on", partitions=1, name="acct"):
    @transition(source="on")
    def look(self) -> int:
        return 7


async def test_a_result_of_another_version_is_said_to_be_one(url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace, machines=[Other]) as client, working(url, namespace, Old):
        handle = await client.send(Other.look("k"))
        with pytest.raises(
            StatemqError, match=r"has completed, but look of this version of acct returns another type: .xpected int, got str"
        ):
            await handle.result(timeout=20)
        assert bytes((await handle.outcome()).result) == b'"nothing to do"'
