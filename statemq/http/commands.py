"""Sending commands: ``POST /{machine}/{key}/{transition}`` and ``…/send``."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import falcon
import falcon.asgi

from statemq.client.client import Handle
from statemq.codec import digest, duration_text
from statemq.config import Share
from statemq.errors import Pending, StatemqError, UnknownTransition
from statemq.http.access import SUBMIT
from statemq.http.paths import header_id, join_path
from statemq.http.problems import Refusal, refusal_of_outcome
from statemq.http.request import Request, read_duration_s
from statemq.http.service import Service
from statemq.http.views import Accepted, answer_json, answer_line
from statemq.records import Outcome
from statemq.store.draft import SHARE

TIMEOUT = ("timeout", "wait")
"""How long to wait for an outcome, as everywhere; and what it is called beside that."""


class CallResource:
    """Answers the result once the command has ended; 504 with its id when that takes longer than was to be waited."""

    write_role = SUBMIT

    def __init__(self, service: Service) -> None:
        self.service = service

    async def on_post(self, req: Request, resp: falcon.asgi.Response, machine: str, key: str, name: str) -> None:
        self.service.check_kind(machine, name, "POST")
        if "respond-async" in req.preferences():
            await send_only(self.service, req, resp, machine, key, name)
            resp.set_header("Preference-Applied", "respond-async")
            return
        given = req.parameters((*TIMEOUT, "if_state"))
        seconds = wait_s(self.service, req, given)
        handle = await send(self.service, req, resp, machine, key, name, given)
        await answer_outcome(self.service, req, resp, handle, machine, seconds)


class SendResource:
    """Answers 202 and the command's id once the command is queued."""

    write_role = SUBMIT

    def __init__(self, service: Service) -> None:
        self.service = service

    async def on_post(self, req: Request, resp: falcon.asgi.Response, machine: str, key: str, name: str) -> None:
        await send_only(self.service, req, resp, machine, key, name)


async def send_only(service: Service, req: Request, resp: falcon.asgi.Response, machine: str, key: str, transition: str) -> None:
    given = req.parameters(("delay", "if_state"))
    handle = await send(service, req, resp, machine, key, transition, given)
    resp.status = falcon.HTTP_202
    name_command(req, resp, handle.id)
    answer_json(resp, Accepted(handle.id))


async def send(
    service: Service, req: Request, resp: falcon.asgi.Response, machine: str, key: str, transition: str, given: dict[str, str]
) -> Handle[Any]:
    """The command is queued, or an earlier one with the same idempotency key was found. Where nobody can tell, the answer has its id."""
    arguments = await service.arguments(req)
    options: dict[str, Any] = {}
    if idempotency_key := req.header("Idempotency-Key").strip():
        # the draft standard quotes it, most callers do not: both mean the same key
        quoted = re.fullmatch(r'"(.+)"', idempotency_key)
        options["idempotency_key"] = req.keys_of + (quoted[1] if quoted else idempotency_key)
    if match := req.header("If-Match").strip():
        options["if_version"] = read_version(match)
    if "if_state" in given:
        options["if_state"] = given["if_state"]
    if "delay" in given:
        options["delay"] = delay_s(service, given["delay"])
    SHARE.set(Share(digest(req.caller.encode()), service.settings.commands_each, service.settings.bytes_each))
    client = await service.client()
    try:
        handle = await client.send(machine, key, transition, arguments, timeout=service.settings.redis_within_s, **options)
    except UnknownTransition as error:
        if error.name == options.get("if_state") != transition:
            raise Refusal("parameter", f"if_state: {error}") from None
        raise
    except Pending as error:
        name_command(req, resp, error.id)
        again = ", or send it again with the same Idempotency-Key" if idempotency_key else ""
        detail = f"{error}; ask for it by its id{again}"
        raise Refusal("pending", detail, id=error.id, machine=machine, key=key, transition=transition) from None
    req.queued = True
    return handle


async def answer_outcome(
    service: Service, req: Request, resp: falcon.asgi.Response, handle: Handle[Any], machine: str, seconds: float
) -> None:
    """The result as JSON with 200, or the problem that says how else it ended or that it has not."""
    name_command(req, resp, handle.id)
    try:
        outcome = await service.waiting.outcome(req, handle, seconds)
    except Pending as error:
        where = join_path(req.root_path, "-", "commands", handle.id, "result")
        detail = f"{error}{await no_worker(service, machine)}. Its result will be at {where}"
        raise Refusal("pending", detail, id=handle.id, machine=machine, headers={"Location": where}) from None
    answer_result(resp, machine, outcome)


async def no_worker(service: Service, machine: str) -> str:
    """The most frequent reason for a wait without end, if it is the reason."""
    if service.waiting.stopping:
        return ""
    with suppress(StatemqError):
        client = await service.client()
        if not await service.within(client.live_workers(machine)):
            return f"; no worker of {machine} runs now"
    return ""


def answer_result(resp: falcon.asgi.Response, machine: str, outcome: Outcome) -> None:
    if outcome.outcome != "completed":
        raise refusal_of_outcome(machine, outcome)
    answer_line(resp, bytes(outcome.result))


def name_command(req: Request, resp: falcon.asgi.Response, id: str) -> None:
    """From now on every answer of this request, whatever goes wrong, has the command's id."""
    req.command = id
    resp.set_header("Statemq-Id", header_id(id))
    resp.set_header("Location", join_path(req.root_path, "-", "commands", id))


def wait_s(service: Service, req: Request, given: dict[str, str]) -> float:
    """How long to wait for the outcome: ``?timeout=30s``, else ``Prefer: wait=30``, else the default."""
    longest = service.settings.max_wait_s
    named = [name for name in TIMEOUT if name in given]
    if len(named) > 1:
        raise Refusal("parameter", "timeout and wait mean the same; give one of them")
    for name in named:
        seconds = read_duration_s(name, given[name])
        if seconds > longest:
            raise Refusal(
                "parameter", f"{name}: at most {duration_text(round(longest * 1000))}; ask again by the command's id, or send instead"
            )
        return seconds
    preferred = req.preferences().get("wait")
    if preferred:
        return min(read_duration_s("Prefer: wait", preferred), longest)
    return service.settings.wait_s


def delay_s(service: Service, text: str) -> float:
    seconds, longest = read_duration_s("delay", text), service.settings.max_delay_s
    if seconds > longest:
        raise Refusal("parameter", f"delay: at most {duration_text(round(longest * 1000))} here; statemq serve --max-delay allows more")
    return seconds


def read_version(match: str) -> int:
    """The instance's version that ``If-Match: "3"`` names: the ETag of ``GET /{machine}/{key}``."""
    if found := re.fullmatch(r'(?:W/)?"(\d{1,15})"', match):
        return int(found[1])
    raise Refusal("parameter", f'If-Match: give the ETag of the instance, such as "3"; not {match[:100]}')
