"""The panel "Check": is this Redis fit, are these machines well, and what must a user be allowed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from statemq.cli import complete, options, show
from statemq.cli.connect import SILENT_S
from statemq.cli.ends import ENDED_BADLY, say
from statemq.cli.escape import clean, json_text
from statemq.cli.find import find
from statemq.cli.fold import hanging, in_colour, room
from statemq.config import Role, Safety, shown

if TYPE_CHECKING:
    from statemq.doctor.finding import Finding

LONG_S = 300.0


def doctor(
    machines: Annotated[
        list[str] | None,
        typer.Argument(
            autocompletion=complete.machines,
            metavar="MACHINE",
            help="Only these machines. Default: all of the namespace.",
            show_default=False,
        ),
    ] = None,
    durability: Annotated[
        Safety | None,
        typer.Option(
            "--durability", help="What the server must not lose: nothing (memory), a crash, a power cut, a host.", show_default=False
        ),
    ] = None,
    older: Annotated[
        float | None,
        typer.Option("--older", parser=options.seconds, metavar="TIME", help="What runs or waits longer is named as stuck. [5m]"),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend drained streams whose entry ids were used up by hand.")] = False,
    json: options.Json = False,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """Check the Redis and the machines in it; say what to do.

    Looks at the server (version and known holes, eviction, memory, persistence, replicas, clock) and at each machine (data, workers,
    leases, backlog, what is stuck, damaged keys, streams, dead letters, pauses). Each line is ok, warn or bad.

    It changes nothing without --repair, needs the rights of `statemq acl reader` only, and says what it could not see.
    Exit code 1 when a line is bad, 3 without a Redis.

    Example: statemq doctor resource --durability everysec
    """
    import asyncio

    from statemq.doctor.examine import examine

    place = find(redis, namespace)
    long_ms = round((LONG_S if older is None else older) * 1000)

    async def run() -> list[Finding]:
        where = shown(place.url)
        remark = asyncio.get_running_loop().call_later(SILENT_S, say, f"no answer from Redis at {where} yet; trying for some seconds")
        try:
            return await examine(place.url, place.namespace, machines or (), durability=durability, long_ms=long_ms, repair=repair)
        finally:
            remark.cancel()

    found = asyncio.run(run())
    if json:
        for finding in found:
            show.out(json_text(show.plain(finding)))
    else:
        _print(found)
    count = {level: sum(finding.level == level for finding in found) for level in ("ok", "warn", "bad")}
    say(f"{count['bad']} bad, {count['warn']} to look at, {count['ok']} ok")
    if count["bad"]:
        raise typer.Exit(ENDED_BADLY)


def _print(found: list[Finding]) -> None:
    """A table; what to do stands below its line."""
    wide = room(sys.stdout)
    begins = show.align([[*(clean(cell) for cell in (f.level, f.where, f.check)), "|"] for f in found])
    color = {"warn": typer.colors.YELLOW, "bad": typer.colors.RED} if in_colour(sys.stdout) else {}
    for label, finding in zip(begins, found, strict=True):
        begin = label.removesuffix("|")
        for line in [begin + clean(finding.text)] if wide is None else hanging(begin, finding.text, wide):
            show.out(typer.style(line, fg=color[finding.level]) if finding.level in color else line)
        if finding.todo:
            show.tell(f"→ {finding.todo}", indent="      ")


def acl(
    role: Annotated[Role, typer.Argument(metavar="ROLE", help="reader, client, operator or worker.", show_default=False)],
    no_functions: Annotated[bool, typer.Option("--no-functions", help="No rule has functions any more.", hidden=True)] = False,
    durability: Annotated[
        str | None,
        typer.Option("--durability", metavar="fsync|replicas=N", help="For clients that wait for disk or replicas.", show_default=False),
    ] = None,
    namespace: options.Namespace = None,
) -> None:
    """Print the Redis ACL rule of a role: what it needs, and no more.

    reader sees (machines, get, history, doctor). client also sends commands and hears how they end. operator also cancels, pauses,
    retries and discards dead letters, and mends. worker runs machines.

    All scripts run by EVALSHA: none of these users may load functions, since who may load them can replace those that others run.
    Whoever may write here can change anything in the namespace: give untrusted callers HTTP.

    Example: statemq acl worker | xargs redis-cli ACL SETUSER shop-worker on '>secret'
    """
    from statemq.store import acl as rules
    from statemq.store.durability import parse

    place = find("redis://", namespace)
    show.out(rules.rule(role, place.namespace, durability=parse(durability)))
