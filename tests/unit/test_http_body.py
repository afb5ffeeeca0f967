"""A request that is answered before its body has come lets go of the body at once: until then the server keeps the connection."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from statemq.config import HttpSettings
from tests.unit.http_fakes import Edge

LENGTH, CHUNKED = (b"content-length", b"100"), (b"transfer-encoding", b"chunked")


class Caller:
    """One whose body does not come, or comes in drips, and who hears the status."""

    def __init__(self, drips: bool) -> None:
        self.drips, self.status = drips, 0

    async def receive(self) -> dict[str, Any]:
        await (asyncio.sleep(0.001) if self.drips else asyncio.Event().wait())
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)


@pytest.mark.parametrize("drips", [False, True])
@pytest.mark.parametrize(
    ("path", "status", "headers"),
    [
        ("/resource/a/setUp/send", 408, [LENGTH]),
        ("/resource/a/setUp/send", 408, [CHUNKED]),
        ("/resource/a/setUp", 408, [LENGTH]),
        ("/-/commands/resource:7:1700000000000-0/cancel", 408, [LENGTH]),
        ("/resource/a/setUp/send", 413, [(b"content-length", b"1000000000")]),
        ("/resource/a/setUp/send", 431, [LENGTH, (b"x", b"y" * 200_000)]),
        ("/resource/a/setUp/send", 403, [LENGTH, (b"origin", b"http://evil.example")]),
        ("/resource/a/setUp/send?n=1", 400, [LENGTH]),
        ("/nothing/of/this/kind/at/all", 404, [CHUNKED]),
        ("/resource/a/room", 405, [LENGTH]),
    ],
)
async def test_nothing_of_the_body_is_held(path: str, status: int, headers: list[tuple[bytes, bytes]], drips: bool) -> None:
    """What a raised error keeps (frames, and what they have) must not wait for the garbage collector: seen from Python 3.12 on, where
    the connection of a body that did not come stayed open until other requests had made enough garbage."""
    edge = Edge(settings=HttpSettings(body_within_s=0.05))
    await edge.service.start()
    path, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    caller = Caller(drips)
    held = weakref.ref(caller)
    gc.collect()
    gc.disable()
    try:
        await asyncio.create_task(edge.app(scope, caller.receive, caller.send))
        said = caller.status
        del caller
        await asyncio.sleep(0)
        assert (said, held()) == (status, None)
    finally:
        gc.enable()
        await edge.service.close()
