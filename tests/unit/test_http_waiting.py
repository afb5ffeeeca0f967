"""Requests that wait: they end with their caller, with the server, and with Redis coming back."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from statemq.client.client import Client
from statemq.config import HttpSettings
from statemq.errors import RedisAway
from statemq.http.access import Access
from statemq.http.app import build_app
from statemq.http.service import Service
from tests.unit.http_fakes import Edge, FakeClient, Resource
from tests.waiting import wait_until


class Caller:
    """One request to the app, spoken as ASGI."""

    def __init__(self, edge: Edge, path: str, *, body: bytes = b"", whole: bool = True) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.events.put_nowait({"type": "http.request", "body": body, "more_body": not whole})
        self.sent: list[dict[str, Any]] = []
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"wait=200s",
            "root_path": "",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"20")][: 2 if whole else 3],
        }
        self.answered = asyncio.ensure_future(edge.app(scope, self.events.get, self.send))

    async def send(self, event: Any) -> None:
        self.sent.append(event)

    def leave(self) -> None:
        self.events.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def error(self) -> str:
        return str(json.loads(self.sent[1]["body"])["error"])


async def test_who_leaves_is_not_waited_for() -> None:
    edge = Edge()
    edge.client.ended.clear()
    caller = Caller(edge, "/resource/a/setUp")
    await wait_until(lambda: edge.service.waiting.count == 1)
    caller.leave()
    await asyncio.wait_for(caller.answered, 10)
    assert edge.service.waiting.count == 0
    assert len(edge.client.sent) == 1


async def test_a_request_that_breaks_off_is_not_run() -> None:
    edge = Edge()
    caller = Caller(edge, "/resource/a/setUp", body=b"  ", whole=False)
    caller.leave()
    await asyncio.wait_for(caller.answered, 10)
    assert (caller.status, caller.error, edge.client.sent) == (400, "body", [])


async def test_a_slow_body_is_refused() -> None:
    edge = Edge(settings=HttpSettings(body_within_s=0.01))
    caller = Caller(edge, "/resource/a/setUp", body=b"{", whole=False)
    await asyncio.wait_for(caller.answered, 10)
    assert (caller.status, caller.error) == (408, "slow")


async def test_all_who_wait_are_answered_when_the_server_stops() -> None:
    edge = Edge()
    edge.client.ended.clear()
    waiting, reading = Caller(edge, "/resource/a/setUp"), Caller(edge, "/resource/b/setUp", body=b"{", whole=False)
    await wait_until(lambda: edge.service.waiting.count == 1)
    edge.service.waiting.stop()
    await asyncio.wait_for(asyncio.gather(waiting.answered, reading.answered), 10)
    assert (waiting.status, waiting.error) == (504, "pending")
    assert (reading.status, reading.error) == (503, "stopping")


async def test_an_outcome_that_comes_late_is_answered() -> None:
    edge = Edge()
    edge.client.ended.clear()
    caller = Caller(edge, "/resource/a/setUp")
    await wait_until(lambda: edge.service.waiting.count == 1)
    edge.client.ended.set()
    await asyncio.wait_for(caller.answered, 10)
    assert (caller.status, caller.sent[1]["body"]) == (200, b'"a is now UP"\n')


async def test_redis_is_found_when_it_is_back() -> None:
    client = FakeClient()
    client.connect_fault = RedisAway("not yet")
    service = Service([Resource], lambda: cast(Client, client), HttpSettings())
    build_app(service, Access(None, ()))
    await service.start()
    client.connect_fault = None

    async def back() -> bool:
        try:
            return await service.client() is cast(Client, client)
        except RedisAway:
            return False

    await wait_until(back)
    await service.close()
    assert not client.connected
