"""HTTP while Redis does not answer: who cannot be told whether a command was queued gets its id."""

from __future__ import annotations

import asyncio
from typing import Any

import falcon.testing
import pytest

from statemq.config import HttpSettings
from statemq.http.app import App, create_app
from tests.fake_worker import FakeWorker
from tests.faulty import FaultyProxy
from tests.integration.door import Door
from tests.waiting import wait_until

HURRIED = HttpSettings(redis_within_s=1.0)
KEY = {"Idempotency-Key": "once"}
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "call": ("/door/a/open", {}),
    "send": ("/door/a/open/send", {}),
    "delayed": ("/door/a/open/send?delay=1h", {}),
    "prefer": ("/door/a/open", {"Prefer": "respond-async"}),
}


@pytest.fixture
def app(proxy: FaultyProxy, namespace: str) -> App:
    return create_app([Door], proxy.url, namespace, settings=HURRIED)


async def post(conductor: falcon.testing.ASGIConductor, path: str, headers: dict[str, str]) -> falcon.testing.Result:
    path, _, query = path.partition("?")
    return await conductor.simulate_post(path, query_string=query, headers=headers, host="localhost")


async def warm(conductor: falcon.testing.ASGIConductor) -> None:
    """All connections stand, and the machine is known."""

    async def is_sent() -> bool:
        return (await post(conductor, "/door/other/open/send", {})).status_code == 202

    await wait_until(is_sent)


@pytest.mark.leaves_work
@pytest.mark.parametrize("way", WAYS)
async def test_a_command_that_may_be_queued_is_answered_with_its_id(app: App, proxy: FaultyProxy, fake: FakeWorker, way: str) -> None:
    path, headers = WAYS[way]
    async with falcon.testing.ASGIConductor(app) as conductor:
        await warm(conductor)
        proxy.hold_reply("append")
        result = await post(conductor, path, headers | KEY)
        body: dict[str, Any] = result.json
        assert (result.status_code, body["error"], result.headers.get("retry-after")) == (504, "pending", None), body
        assert body["id"] == result.headers["statemq-id"]
        assert (body["machine"], body["key"], body["transition"]) == ("door", "a", "open")
        assert "may have been queued" in body["detail"] and "same Idempotency-Key" in body["detail"]
        proxy.cut()  # Redis answers again
        await warm(conductor)
        again = await post(conductor, "/door/a/open/send" + path.partition("send")[2], KEY)
        assert (again.status_code, again.json["id"]) == (202, body["id"])
        shown = await conductor.simulate_get(result.headers["location"], host="localhost")
        assert (shown.status_code, shown.json["id"]) == (200, body["id"])
    assert [c.id for c in await fake.queued("a")] == ([] if way == "delayed" else [body["id"]])


@pytest.mark.leaves_work
@pytest.mark.parametrize("way", WAYS)
async def test_a_command_that_was_not_sent_has_no_id_and_is_not_sent_later(
    app: App, proxy: FaultyProxy, fake: FakeWorker, way: str
) -> None:
    path, headers = WAYS[way]
    async with falcon.testing.ASGIConductor(app) as conductor:
        await warm(conductor)
        proxy.refuse = True
        proxy.cut()
        await wait_until(lambda: proxy.connections == 0)
        result = await post(conductor, path, headers)
        assert (result.status_code, result.json["error"], result.json.get("id")) == (503, "redis_away", None)
        assert "statemq-id" not in result.headers
        proxy.refuse = False

        async def again() -> bool:
            return (await post(conductor, "/door/a/shut/send", {})).status_code == 202

        await wait_until(again)
    assert {c.transition for c in await fake.queued("a")} == {"shut"}


@pytest.mark.leaves_work
async def test_a_server_that_ends_while_redis_hangs_answers_with_the_id(proxy: FaultyProxy, fake: FakeWorker, namespace: str) -> None:
    app = create_app([Door], proxy.url, namespace)
    async with falcon.testing.ASGIConductor(app) as conductor:
        await warm(conductor)
        proxy.hold_reply("append")
        asking = asyncio.ensure_future(post(conductor, "/door/a/open", {}))
        await wait_until(lambda: fake.queued("a"))
    result = await asking
    (queued,) = await fake.queued("a")
    assert (result.status_code, result.json["id"], result.headers["statemq-id"]) == (504, queued.id, queued.id)


@pytest.mark.leaves_work
@pytest.mark.parametrize("held", ["cancel", "rights"])
async def test_a_cancel_that_may_have_been_done_is_no_503(app: App, proxy: FaultyProxy, fake: FakeWorker, held: str) -> None:
    async with falcon.testing.ASGIConductor(app) as conductor:
        await warm(conductor)
        id = (await post(conductor, "/door/a/open/send", {})).json["id"]
        proxy.hold_reply(held)
        result = await post(conductor, f"/-/commands/{id}/cancel", {})
        assert (result.status_code, result.json["error"], result.json["id"]) == (504, "pending", id), result.json
        assert "may have been cancelled" in result.json["detail"] and result.headers["statemq-id"] == id
        proxy.cut()
        await warm(conductor)
        proxy.refuse = True
        proxy.cut()
        await wait_until(lambda: proxy.connections == 0)
        away = await post(conductor, f"/-/commands/{id}/cancel", {})
        assert (away.status_code, away.json["error"]) == (503, "redis_away")
        proxy.refuse = False


@pytest.mark.leaves_work
async def test_a_cancel_of_what_nobody_knows_is_unknown(app: App, fake: FakeWorker) -> None:
    async with falcon.testing.ASGIConductor(app) as conductor:
        await warm(conductor)
        result = await post(conductor, "/-/commands/door.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12/cancel", {})
        assert (result.status_code, result.json["error"]) == (404, "unknown")


@pytest.mark.leaves_work
async def test_while_redis_is_away_a_wait_does_not_say_how_the_command_stands(app: App, proxy: FaultyProxy, fake: FakeWorker) -> None:
    """It may have been cancelled, or have ended, long ago."""
    async with falcon.testing.ASGIConductor(app) as conductor:
        await warm(conductor)
        id = (await post(conductor, "/door/a/open/send", {})).json["id"]

        async def told() -> str:
            result = await conductor.simulate_get(f"/-/commands/{id}/result", query_string="wait=50ms", host="localhost")
            assert result.status_code == 504, result.text
            return str(result.json["detail"])

        assert "it is not cancelled, it still waits or runs" in await told()
        proxy.refuse = True
        proxy.cut()
        await wait_until(lambda: proxy.connections == 0)
        assert "Redis does not answer, so it is not known whether it has ended" in await told()
        proxy.refuse = False
