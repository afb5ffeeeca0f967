"""What a request asks, read strictly: its path, its parameters, its headers and its body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

import falcon.asgi
import msgspec

from statemq.codec import duration_ms
from statemq.errors import UsageError
from statemq.http.paths import split_path
from statemq.http.problems import Refusal

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class _Events:
    """What the server tells of a request, and whether its caller has left. Knows nothing of the request: a circle would keep the
    server's end of it, and with it the connection of a caller who sends on, until the collector comes by."""

    __slots__ = ("gone", "receive")

    def __init__(self, receive: Callable[[], Awaitable[Any]]) -> None:
        self.receive, self.gone = receive, False

    async def __call__(self) -> Any:
        event = await self.receive()
        if event["type"] == "http.disconnect":
            self.gone = True
        return event


class Request(falcon.asgi.Request):
    """Falcon's request, which also knows its path's segments, its caller's roles and whether the caller has left."""

    def __init__(self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], **kwargs: Any) -> None:
        self._events = _Events(receive)
        super().__init__(scope, self._events, **kwargs)
        self.roles: frozenset[str] = frozenset()
        self.body_left = False
        """A body was announced and has not been read to its end."""
        self.command = ""
        """The id of the command that it has queued or asks for, once that is known."""
        self.queued = False
        """Whether that command was queued by it, or may have been."""
        self.keys_of = ""
        """What its idempotency keys begin with; not empty where each token has keys of its own."""
        self.caller = ""
        """Its token's mark (the digest's first digits), or else its address."""

    @cached_property
    def segments(self) -> tuple[str, ...]:
        return split_path(self.scope)

    async def until_gone(self) -> None:
        """Returns when the caller has closed the connection. The body must have been read."""
        while not self._events.gone:
            await self._events()

    def header(self, name: str) -> str:
        """A header as UTF-8; empty if it was not sent."""
        value = self.get_header(name)
        if value is None:
            return ""
        try:
            return value.encode("latin-1").decode()
        except UnicodeError:
            raise Refusal("parameter", f"the header {name} is no UTF-8") from None

    @cached_property
    def parameter_list(self) -> list[tuple[str, str]]:
        try:
            return parse_qsl(self.query_string, keep_blank_values=True, errors="strict", max_num_fields=100)
        except ValueError:
            raise Refusal("parameter", "the query string cannot be read (not UTF-8, or more than 100 parameters)") from None

    def parameters(self, known: Collection[str]) -> dict[str, str]:
        """The query parameters, each given once. Raises Refusal for one that this call does not take."""
        found: dict[str, str] = {}
        for name, value in self.parameter_list:
            if name not in known:
                takes = ", ".join(known) or "none"
                raise Refusal("parameter", f'unknown parameter "{name}"; this call takes: {takes}')
            if name in found:
                raise Refusal("parameter", f'parameter "{name}" was given twice')
            found[name] = value
        return found

    def preferences(self) -> dict[str, str]:
        """``Prefer: respond-async, wait=10`` as names and values (RFC 7240)."""
        parts = [part.partition(";")[0].partition("=") for part in self.header("Prefer").split(",")]
        return {name.strip().lower(): value.strip().strip('"') for name, _, value in parts if name.strip()}

    async def arguments(self, limit: int) -> dict[str, Any]:
        """The body, a JSON object of at most ``limit`` bytes; an empty one stands for no arguments."""
        body = await self.body(limit)
        if not body.strip():
            return {}
        if (self.content_type or "").partition(";")[0].strip().lower() != "application/json":
            raise Refusal("content_type", "send the arguments with the header Content-Type: application/json")
        try:
            return _decode_object(body)
        except msgspec.ValidationError as error:
            raise Refusal("arguments", f"the body must be a JSON object of arguments: {error}") from None
        except (ValueError, RecursionError) as error:
            why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise Refusal("body", f"the body is no JSON: {why}") from None

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises Refusal if it has more than ``limit`` bytes or was cut off."""
        length = self.content_length
        if length is not None and length > limit:
            raise Refusal("too_large", f"the body has {length} bytes; the limit is {limit}")
        body = b""
        async for chunk in self.stream:
            body += chunk
            if len(body) > limit:
                raise Refusal("too_large", f"the body has more than {limit} bytes, which is the limit")
        if self._events.gone or (length is not None and len(body) < length):
            raise Refusal("body", "the connection ended before the body did")  # half a request must not run
        self.body_left = False
        return body


def read_duration_s(name: str, text: str) -> float:
    """Seconds of ``30s``, ``500ms``, ``2``. Raises Refusal."""
    try:
        return duration_ms(text) / 1000
    except UsageError as error:
        raise Refusal("parameter", f"{name}: {error}") from None
