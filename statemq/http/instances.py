"""Looking at an instance: ``GET /{machine}/{key}`` and ``GET /{machine}/{key}/{query}``."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import falcon.asgi
import msgspec

from statemq.client.client import Client
from statemq.http.access import SUBMIT
from statemq.http.request import Request
from statemq.http.service import Service
from statemq.http.views import answer_json, instance_view
from statemq.records import CommandStatus, Queued

IN_PROGRESS = ("running", "waiting")


class InstanceResource:
    """State, version, data, the running command with its steps, the queue, and what the state allows."""

    write_role = SUBMIT

    def __init__(self, service: Service) -> None:
        self.service = service

    async def on_get(self, req: Request, resp: falcon.asgi.Response, machine: str, key: str) -> None:
        req.parameters(())
        client, limit = await self.service.client(), self.service.settings.queue_shown
        instance, queue = await self.service.within(
            asyncio.gather(client.get(machine, key), client.queue(machine, key, limit=limit)),
        )
        running = await self.service.within(self.running(client, queue))
        allowed = await self.service.within(self.allowed(client, machine, instance.state))
        waiting = [entry for entry in queue if running is None or entry.id != running.id]
        answer_json(resp, instance_view(instance, allowed, running, waiting))
        # The version is for If-Match of a command. Steps and queue change without it, so no answer is ever 304.
        resp.set_header("ETag", f'"{instance.version}"')

    async def running(self, client: Client, queue: list[Queued]) -> CommandStatus | None:
        """The command in progress with its steps; None if it ended meanwhile."""
        for entry in queue:
            if entry.status in IN_PROGRESS and entry.where != "timer":
                status = await client.show(entry.id)
                return status if status.status in IN_PROGRESS else None
        return None

    async def allowed(self, client: Client, machine: str, state: str) -> list[str]:
        """The transitions with a case for this state, in the order of the declaration."""
        spec = self.service.specs.get(machine)
        if spec is not None:
            return spec.allowed(state)
        graph = await client.graph(machine)
        return list(dict.fromkeys(t["name"] for t in graph["transitions"] if state in t["source"]))


class QueryResource:
    """The result of a query. Its arguments are the query parameters, read by their declared types."""

    write_role = SUBMIT

    def __init__(self, service: Service) -> None:
        self.service = service

    async def on_get(self, req: Request, resp: falcon.asgi.Response, machine: str, key: str, name: str) -> None:
        self.service.check_kind(machine, name, "GET")
        arguments = self.arguments(req, machine, name)
        client = await self.service.client()
        answer_json(resp, await self.service.within(client.query(machine, key, name, arguments)))

    def arguments(self, req: Request, machine: str, query: str) -> dict[str, Any]:
        given: dict[str, list[str]] = {}
        for name, value in req.parameter_list:
            given.setdefault(name, []).append(value)
        spec = self.service.specs.get(machine)
        operation = spec.queries.get(query) if spec else None
        types: dict[str, Any] = {}
        if operation is not None:
            types = {field.name: field.type for field in msgspec.structs.fields(operation.arguments)}
        return {name: read_argument(texts, types.get(name, Any)) for name, texts in given.items()}


def read_argument(texts: list[str], declared: Any) -> Any:
    """A parameter as plain JSON of the declared type: its text, the JSON in it, or a list of what was given.

    What fits in no way stays a text, and is refused when the arguments are checked.

    >>> read_argument(["2"], int), read_argument(["2"], str), read_argument(["a"], list[str]), read_argument(["[1]"], list[int])
    (2, '2', ['a'], [1])
    """
    readings: list[Any] = [texts]
    if len(texts) == 1:
        readings.insert(0, texts[0])
        with contextlib.suppress(ValueError, RecursionError):
            readings.insert(1, msgspec.json.decode(texts[0]))
    for reading in readings:
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.to_builtins(msgspec.convert(reading, declared, strict=False))
    return texts[0]
