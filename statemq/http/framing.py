"""Where a request begins and ends: what a proxy before this server may have read otherwise is refused, with its connection (S8).

The parser (hyper's, in granian) refuses most: signed, listed or differing Content-Length, folded headers, NUL and bare CR, chunk
garbage, a last coding that is not chunked. Here goes what it lets pass and what the standard advises against.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from statemq.http.problems import Refusal

Receive = Callable[[], Awaitable[Any]]

CLOSE = {"Connection": "close"}


def check_framing(scope: MutableMapping[str, Any], max_header_bytes: int) -> bool:
    """Whether a body follows.

    Raises Refusal unless the request has one Host, one length at most, no coding but chunked, and headers within the limit.
    """
    size, hosts, lengths, codings = len(scope.get("raw_path") or b"") + len(scope["query_string"]), 0, 0, 0
    follows = False
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths += 1
            follows = value != b"0"
        elif name == b"transfer-encoding":
            codings += 1 if value.lower() == b"chunked" else 2
            follows = True
    if size > max_header_bytes:
        raise Refusal("headers", f"path, query and headers have {size} bytes; the limit is {max_header_bytes}", headers=CLOSE)
    if hosts > 1 or lengths + codings > 1:
        raise Refusal("framing", "send one Host, and one Content-Length or Transfer-Encoding: chunked", headers=CLOSE)
    if scope["method"] == "CONNECT":
        raise Refusal("framing", "this server is no proxy", headers=CLOSE)
    return follows


def body_later(receive: Receive) -> Receive:
    """The same events after one that says nothing: so the app is asked before the body has begun to arrive, and waits for it
    only where it wants it, within the time it gives."""
    begun = False

    async def events() -> Any:
        nonlocal begun
        if begun:
            return await receive()
        begun = True
        return {"type": "http.request", "body": b"", "more_body": True}

    return events
