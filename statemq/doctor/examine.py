"""One examination: all servers, all machines of a namespace or the named ones, and what can be mended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from statemq.config import Safety, check_namespace
from statemq.doctor.finding import Finding, Findings
from statemq.doctor.machine import judge_machine
from statemq.doctor.server import judge_server
from statemq.errors import SchemaTooNew, ServerError, StatemqError, UnknownMachine, UnsupportedServer
from statemq.store import health
from statemq.store.catalog import Catalog, Known
from statemq.store.declare import known_machines
from statemq.store.mend import mend_stream
from statemq.store.router import Router
from statemq.store.wire import ReplyError

CONNECT_WITHIN_S = 5.0


async def examine(
    url: str,
    namespace: str,
    machines: Sequence[str] = (),
    *,
    durability: Safety | None = None,
    long_ms: int = 300_000,
    repair: bool = False,
) -> list[Finding]:
    """All findings. Nothing is changed without ``repair``. Raises RedisAway, UnsupportedServer, UnknownMachine."""
    check_namespace(namespace)
    router = await Router(url, refuse_eviction=False).open(CONNECT_WITHIN_S)
    try:
        found: list[Finding] = []
        for facts in await asyncio.gather(*(health.server(router, node) for node in router.nodes)):
            found += judge_server(facts, durability)
        say = Findings(namespace)
        catalog = Catalog(router, namespace, ())
        for name in await _names(say, router, namespace, machines):
            found += await _machine(router, catalog, namespace, name, long_ms, repair)
        return found + say.lines
    finally:
        await router.close()


async def _names(say: Findings, router: Router, namespace: str, wanted: Sequence[str]) -> list[str]:
    if wanted:
        return list(dict.fromkeys(wanted))
    try:
        names = await known_machines(router, namespace)
    except ReplyError as error:
        _unread(say, f"{namespace}:machines", error)
        return []
    if not names:
        say.warn(
            "machines", "no machine is declared in this namespace", "statemq worker TARGET declares its machines; is --namespace right?"
        )
    return names


async def _machine(router: Router, catalog: Catalog, namespace: str, name: str, long_ms: int, repair: bool) -> list[Finding]:
    say = Findings(name)
    try:
        known = await catalog.find(name)
        facts = await health.machine(router, namespace, known, long_ms)
        if repair and any(part.used_up for part in facts.partitions):
            await _repair(say, router, known, facts)
            facts = await health.machine(router, namespace, known, long_ms)
    except SchemaTooNew as error:
        say.bad("data", str(error), "run doctor from the newer version")
        return say.lines
    except UnknownMachine:
        raise
    except ServerError as error:
        _unread(say, name, error)
        return say.lines
    return say.lines + judge_machine(facts, long_ms)


def _unread(say: Findings, what: str, error: StatemqError) -> None:
    if "NOPERM" in str(error):
        say.unseen("rights", [what], "ask as a user with the rights of: statemq acl reader")
    else:
        say.bad("data", str(error), f"look at {what} with redis-cli; it was changed by hand")


async def _repair(say: Findings, router: Router, known: Known, facts: health.MachineFacts) -> None:
    """Command streams without ids take entries again; what was done, or why not."""
    for part in facts.partitions:
        if not part.used_up:
            continue
        try:
            word = await mend_stream(router, known, known.partitions[part.number])
        except (UnsupportedServer, ReplyError) as error:
            say.bad("repair", f"partition {part.number}: {error}", "repair as a user with the rights of: statemq acl operator")
            continue
        if word == "full":
            say.bad(
                "repair",
                f"partition {part.number} still holds commands",
                "end or cancel them, then again; if a key was resumed meanwhile, restart the worker, which could not hear of it",
            )
        else:
            say.ok("repair", f"partition {part.number} takes commands again: its used-up stream was deleted, and its owner begins anew")
