"""The engine's own paths, ``/-/…``: commands by their id, machines, and whether this process is well."""

from __future__ import annotations

import falcon
import falcon.asgi

from statemq.codec import parse_command_id
from statemq.errors import RedisAway, StatemqError
from statemq.http.access import OPERATE
from statemq.http.commands import TIMEOUT, answer_outcome, wait_s
from statemq.http.paths import header_id
from statemq.http.problems import Refusal, refusal_of
from statemq.http.request import Request
from statemq.http.service import Service
from statemq.http.views import CancelView, HealthView, answer_json, command_view, machine_view


class Engine:
    """What the resources here have in common."""

    write_role = OPERATE

    def __init__(self, service: Service) -> None:
        self.service = service


class CommandResource(Engine):
    """``GET /-/commands/{id}``: its status, attempts and steps."""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id: str) -> None:
        req.parameters(())
        parse_command_id(id)
        req.command = id
        client = await self.service.client()
        status = await self.service.within(client.show(id))
        resp.set_header("Statemq-Id", header_id(id))
        answer_json(resp, command_view(status))


class ResultResource(Engine):
    """``GET /-/commands/{id}/result?timeout=30s``: what the POST would have answered."""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id: str) -> None:
        seconds = wait_s(self.service, req, req.parameters(TIMEOUT))
        machine, _ = parse_command_id(id)
        req.command = id
        client = await self.service.client()
        await answer_outcome(self.service, req, resp, client.handle(id), machine, seconds)


class CancelResource(Engine):
    """``POST /-/commands/{id}/cancel``: 200 when it is cancelled, 202 when a running one was asked to end, 409 when it has ended."""

    async def on_post(self, req: Request, resp: falcon.asgi.Response, id: str) -> None:
        req.parameters(())
        await self.service.arguments(req)
        parse_command_id(id)
        req.command = id
        client = await self.service.client()
        await self.service.within(client.show(id))  # while Redis is away nothing is asked of it
        try:
            said = await self.service.within(client.cancel(id, by=f"HTTP, {req.caller}"))
        except RedisAway:
            raise Refusal("pending", f"Redis did not confirm it: {id} may have been cancelled; ask for it by its id", id=id) from None
        resp.set_header("Statemq-Id", header_id(id))
        if said == "ended":
            raise Refusal("ended", f"{id} has ended already, and not by being cancelled", id=id)
        resp.status = falcon.HTTP_202 if said == "asked" else falcon.HTTP_200
        answer_json(resp, CancelView(id, said))


class MachinesResource(Engine):
    """``GET /-/machines``: what is declared in the namespace, with its counts."""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        req.parameters(())
        client = await self.service.client()
        answer_json(resp, [machine_view(info) for info in await self.service.within(client.machines())])


class HealthResource(Engine):
    """``GET /-/health``: 200 while the event loop turns. Says nothing of Redis: a restart would not bring that back."""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        answer_json(resp, HealthView("ok"))


class ReadyResource(Engine):
    """``GET /-/ready``: 200 when Redis answers and has the machines of this process, 503 otherwise. Only who may ask other things, too,
    is told the reason."""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        try:
            client = await self.service.client()
            for name in self.service.specs:
                await self.service.within(client.graph(name))
        except StatemqError as error:
            if not req.roles:
                raise Refusal("not_ready", "this process cannot do its work now; a request with a token is told why") from None
            refusal = refusal_of(error)
            raise (refusal if refusal.problem.status == 503 else Refusal("not_ready", refusal.problem.detail)) from None
        answer_json(resp, HealthView("ready"))
