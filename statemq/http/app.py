"""The ASGI app. Runs on granian by ``statemq serve``, on any other ASGI server, or mounted in another app."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import falcon
import falcon.asgi

from statemq.client.client import Client
from statemq.command import Declared
from statemq.config import HttpSettings
from statemq.errors import StatemqError
from statemq.http.access import Access, Tokens
from statemq.http.commands import CallResource, SendResource
from statemq.http.framing import Receive, body_later
from statemq.http.instances import InstanceResource, QueryResource
from statemq.http.openapi import OpenApiResource
from statemq.http.paths import header_id
from statemq.http.problems import PROBLEM_JSON, Refusal, refusal_of
from statemq.http.request import Request
from statemq.http.routes import Router
from statemq.http.service import Service
from statemq.http.status import (
    CancelResource,
    CommandResource,
    HealthResource,
    MachinesResource,
    ReadyResource,
    ResultResource,
)
from statemq.http.views import answer_json

log = logging.getLogger("statemq.http")


class App(falcon.asgi.App[Request, falcon.asgi.Response]):
    """Falcon's app, which hears of a request before its body, takes HTTP/1.0 as granian names it, and knows whose requests it answers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.busy: set[tuple[str, str]] = set()
        """The address and port of each caller whose request is being answered."""

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Callable[[Any], Awaitable[None]]) -> None:  # type: ignore[override]
        if scope["type"] != "http":
            return await super().__call__(scope, receive, send)
        if scope.get("http_version") == "1":
            scope = {**scope, "http_version": "1.0"}
        host, port = scope.get("client") or ("", "")
        caller = (host, str(port))
        self.busy.add(caller)
        try:
            await super().__call__(scope, body_later(receive), send)
        finally:
            self.busy.discard(caller)


def create_app(
    machines: Iterable[type[Declared]],
    url: str,
    namespace: str,
    *,
    tokens: Tokens | None = None,
    allowed_hosts: Iterable[str] = (),
    settings: HttpSettings | None = None,
    keys_by_token: bool = False,
) -> App:
    """The app for these machines; it connects to Redis when its lifespan begins, or else with the first request.

    Machines that were declared by other processes answer too, by name. ``tokens``: who may ask what (None: everybody may
    everything). ``allowed_hosts``: names besides those of loopback by which this server is reached. ``keys_by_token``: each token
    has idempotency keys of its own.
    """
    return build_app(create_service(machines, url, namespace, settings), Access(tokens, allowed_hosts, keys_by_token=keys_by_token))


def create_service(machines: Iterable[type[Declared]], url: str, namespace: str, settings: HttpSettings | None = None) -> Service:
    classes = list(machines)

    def connect() -> Client:
        return Client(url, namespace=namespace, machines=classes)

    return Service(classes, connect, settings or HttpSettings())


def build_app(service: Service, access: Access) -> App:
    app = App(request_type=Request, router=Router())
    access.limit(service.settings)
    app.add_middleware(access)
    app.add_middleware(service)
    app.req_options.strip_url_path_trailing_slash = False
    for template, resource in routes(service).items():
        app.add_route(template, resource)
    app.add_error_handler(Exception, on_fault)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(StatemqError, on_statemq_error)
    app.add_error_handler(Refusal, on_refusal)
    return app


class OperationResource(CallResource, QueryResource):
    """``/{machine}/{key}/{name}``: POST a transition, GET a query."""


def routes(service: Service) -> dict[str, Any]:
    """Every path and who answers it; the engine's own come first."""
    return {
        "/openapi.json": OpenApiResource(service),
        "/-/machines": MachinesResource(service),
        "/-/health": HealthResource(service),
        "/-/ready": ReadyResource(service),
        "/-/commands/{id}": CommandResource(service),
        "/-/commands/{id}/result": ResultResource(service),
        "/-/commands/{id}/cancel": CancelResource(service),
        "/{machine}/{key}": InstanceResource(service),
        "/{machine}/{key}/{name}": OperationResource(service),
        "/{machine}/{key}/{name}/send": SendResource(service),
    }


async def on_refusal(req: Request, resp: falcon.asgi.Response, error: Refusal, params: dict[str, Any]) -> None:
    """Once a request has a command, whatever else goes wrong is answered with its id: the command may go on."""
    resp.status = error.problem.status
    resp.content_type = PROBLEM_JSON
    answer_json(resp, error.problem)
    resp.set_headers(error.headers)
    if error.problem.id:
        resp.set_header("Statemq-Id", header_id(error.problem.id))


async def on_statemq_error(req: Request, resp: falcon.asgi.Response, error: StatemqError, params: dict[str, Any]) -> None:
    refusal = refusal_of(error, req.command)
    if req.queued and refusal.problem.status == 503:  # which says that nothing was queued
        refusal = Refusal("pending", f"the command was queued, but {refusal.problem.detail}", id=req.command)
    if refusal.problem.status >= 500:
        log.warning("%s %s: %s: %s", req.method, params.get("machine", ""), refusal.problem.error, error)
    await on_refusal(req, resp, refusal, params)


async def on_http_error(req: Request, resp: falcon.asgi.Response, error: falcon.HTTPError, params: dict[str, Any]) -> None:
    """Falcon's own refusals, in our words."""
    headers: dict[str, str] = dict(error.headers) if error.headers else {}
    if error.status_code == 404:
        refusal = Refusal("not_found", "there is no such path; /openapi.json lists them", headers=headers)
    elif error.status_code == 405:
        refusal = Refusal("method", f"this path does not take {req.method}", headers=headers)
    else:
        refusal = Refusal("parameter", error.description or error.title or "the request cannot be read", headers=headers)
    await on_refusal(req, resp, refusal, params)


async def on_fault(req: Request, resp: falcon.asgi.Response, error: Exception, params: dict[str, Any]) -> None:
    """What nobody foresaw: the log has it all, the caller gets no insides."""
    log.error("%s of %s failed", req.method, params.get("machine", "the engine"), exc_info=error)
    await on_refusal(req, resp, Refusal("internal", "a fault of the server; its log says more", id=req.command), params)
