"""Idempotency keys over HTTP: of one request, and with an option of one token."""

from __future__ import annotations

import falcon.testing
import pytest

from statemq.http.access import ROLES, Tokens
from statemq.http.app import create_app
from tests.integration.door import Door

FIRST, SECOND = "the-first-caller", "the-second-caller"
TOKENS = {FIRST: ROLES, SECOND: ROLES}


async def ids(app: object, path: str, *callers: tuple[str, dict[str, str]]) -> list[tuple[int, str]]:
    said = []
    path, _, query = path.partition("?")
    async with falcon.testing.ASGIConductor(app) as conductor:
        for token, headers in callers:
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"} | headers
            result = await conductor.simulate_post(path, query_string=query, headers=headers, host="localhost")
            said.append((result.status_code, result.json.get("id", "")))
    return said


@pytest.mark.leaves_work
@pytest.mark.parametrize("by_token", [False, True])
async def test_keys_of_tokens(url: str, namespace: str, by_token: bool) -> None:
    app = create_app([Door], url, namespace, tokens=Tokens(TOKENS), keys_by_token=by_token)
    quoted = {"Idempotency-Key": '"k"'}
    first, again, second = await ids(app, "/door/a/open/send", (FIRST, {}), (FIRST, quoted), (SECOND, {}))
    assert (first[0], first, second[0]) == (202, again, 202)
    assert (first == second) is not by_token


@pytest.mark.leaves_work
async def test_another_precondition_is_another_request(url: str, namespace: str) -> None:
    app = create_app([Door], url, namespace, tokens=Tokens(TOKENS))
    first, never, plain = await ids(app, "/door/a/open/send", (FIRST, {"If-Match": '"99"'}), (FIRST, {"If-Match": '"99"'}), (SECOND, {}))
    assert first == never and plain == (422, first[1])
    assert await ids(app, "/door/b/open/send?delay=30d", (FIRST, {})) != await ids(app, "/door/b/open/send", (SECOND, {}))
