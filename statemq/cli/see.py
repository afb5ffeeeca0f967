"""The panel "See": what is there, what waits, what happened."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from statemq.cli import complete, options, show
from statemq.cli.connect import ask
from statemq.cli.ends import ENDED_BADLY, say
from statemq.cli.escape import json_text


def machines(json: options.Json = False, redis: options.Redis = None, namespace: options.Namespace = None) -> None:
    """List the machines: workers, what waits, instances by state.

    Example: statemq machines
    """
    columns: show.Columns[Any] = {
        "MACHINE": lambda m: m.name,
        "PARTITIONS": lambda m: str(m.partitions),
        "WORKERS": lambda m: str(m.workers),
        "WAITING": lambda m: str(m.waiting),
        "FAILED": lambda m: str(m.failed),
        "INSTANCES": lambda m: " ".join(f"{state}={count}" for state, count in m.in_state.items() if count),
        "": lambda m: "paused" if m.paused else "",
    }
    found = ask(redis, namespace, lambda client: client.machines())
    show.rows(found, columns, json, "no machine is declared yet; statemq worker TARGET or statemq dev TARGET declares its machines")


def get(
    machine: options.Machine,
    key: options.Key,
    json: options.Json = False,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """Show an instance: state, version, data, as last committed.

    Example: statemq get resource a
    """
    found = ask(redis, namespace, lambda client: client.get(machine, key))
    if json:
        show.out(json_text(show.plain(found)))
        return
    show.fields(
        f"{found.machine}/{found.key}",
        {
            "state": found.state + (", paused" if found.paused else ""),
            "version": str(found.version) if found.exists else "0, no command has changed it yet",
            "entered": show.time(found.entered),
            "updated": show.time(found.updated),
            "data": "" if found.data is None else json_text(found.data),
        },
    )


def list_(
    machine: options.Machine,
    state: Annotated[
        str | None,
        typer.Option("--state", autocompletion=complete.states, metavar="STATE", help="Only those in this state.", show_default=False),
    ] = None,
    older: Annotated[
        float | None,
        typer.Option(
            "--older",
            parser=options.seconds,
            metavar="TIME",
            help="Only those in their state for longer than this: 1h.",
            show_default=False,
        ),
    ] = None,
    limit: options.Limit = 100,
    json: options.Json = False,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """List instances by state, the longest in it first.

    Instances that no command has changed yet are not listed. One in a state that the class does not have any more is "not declared".

    Example: statemq list resource --state UP --older 1h
    """
    columns: show.Columns[Any] = {
        "KEY": lambda i: i.key,
        "STATE": lambda i: i.state,
        "SINCE": lambda i: show.when(i.since),
        "": lambda i: ", ".join(word for word, so in (("paused", i.paused), ("not declared", not i.declared)) if so),
    }
    found = ask(redis, namespace, lambda client: client.list(machine, state=state, older=older, limit=limit))
    which = f" in {state}" if state else ""
    show.rows(found, columns, json, f"there is no instance of {machine}{which}" + (" for so long" if older is not None else ""))
    for gone in dict.fromkeys(row.state for row in found if not row.declared):
        from statemq.declaration.spec import way_out

        say(f"{machine} does not declare {gone} any more: {way_out(gone)}")


def queue(
    machine: options.Machine,
    key: options.MaybeKey = None,
    limit: options.Limit = 100,
    json: options.Json = False,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """List the commands that have not ended.

    Those of one instance run in the order in which they are listed.

    Example: statemq queue resource a
    """
    from statemq.cli.status import shorten

    columns: show.Columns[Any] = {
        "ID": lambda q: q.id,
        "KEY": lambda q: q.key,
        "TRANSITION": lambda q: q.transition,
        "STATUS": lambda q: q.status,
        "WHERE": lambda q: q.where,
        "DUE": lambda q: show.when(q.due),
        "ARGUMENTS": lambda q: "" if not q.args else shorten(json_text(q.args)),
        "FAILED": lambda q: f"{q.attempts} ×" if q.attempts else "",
        "LAST ERROR": lambda q: shorten(q.error),
        "STEP": lambda q: ", ".join(step.name for step in q.retrying),
        "TRIES": lambda q: ", ".join(str(step.tries) for step in q.retrying),
        "SINCE": lambda q: ", ".join(show.when(step.since) for step in q.retrying),
        "STEP'S ERROR": lambda q: shorten("; ".join(step.error for step in q.retrying)),
    }
    found = ask(redis, namespace, lambda client: client.queue(machine, key, limit=limit))
    show.rows(found, columns, json, f"nothing waits for {machine}" + (f"/{key}" if key else ""))


def audit(
    machine: options.Machine,
    limit: options.Limit = 100,
    json: options.Json = False,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """List what operators did, the latest last.

    A line for each cancel, pause, resume, retry and discard: of what, and by whom.

    Example: statemq audit resource
    """
    columns: show.Columns[Any] = {
        "AT": lambda e: show.when(e.at),
        "DID": lambda e: e.did,
        "WHAT": lambda e: e.what,
        "BY": lambda e: e.by,
    }
    found = ask(redis, namespace, lambda client: client.audit(machine, limit=limit))
    show.rows(found, columns, json, f"nobody has done anything to {machine} yet")


def history(
    machine: options.Machine,
    key: options.MaybeKey = None,
    limit: options.Limit = 100,
    json: options.Json = False,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """List what happened, the latest last.

    A line for each command that ended: its outcome, and the states before and after.

    Example: statemq history resource a
    """
    columns: show.Columns[Any] = {
        "AT": lambda h: show.when(h.at),
        "KEY": lambda h: h.key,
        "TRANSITION": lambda h: h.transition,
        "OUTCOME": lambda h: h.outcome,
        "STATES": lambda h: h.source if h.target in ("", h.source) else f"{h.source} → {h.target}".strip(),
        "VERSION": lambda h: str(h.version),
        "ATTEMPTS": lambda h: str(h.attempts),
        "REASON": lambda h: h.reason,
        "ID": lambda h: h.id,
    }
    found = ask(redis, namespace, lambda client: client.history(machine, key, limit=limit))
    show.rows(found, columns, json, f"nothing has happened to {machine}" + (f"/{key}" if key else "") + " yet")


def show_(id: options.Id, json: options.Json = False, redis: options.Redis = None, namespace: options.Namespace = None) -> None:
    """Show how far a command is, and its recorded steps.

    Example: statemq show resource.7.01930c2e5b7a7c3e8f6a2b4c6d8e0f12
    """
    from statemq.cli.status import headline, progress

    status = ask(redis, namespace, lambda client: client.show(id))
    if json:
        show.out(json_text(show.plain(status)))
        return
    ended = status.outcome
    show.fields(
        headline(status),
        {
            "id": status.id,
            "arguments": "" if status.args is None else json_text(status.args),
            "worker": status.worker,
            "due": show.time(status.due),
            "ended": show.time(ended.at) if ended else "",
            "state": f"{ended.state}, version {ended.version}" if ended and ended.state else "",
            "result": json_text(ended.result) if ended and ended.outcome == "completed" else "",
            "reason": (f"{ended.error}: " if ended.error else "") + ended.reason if ended else "",
        },
    )
    for line in progress(status, int(time.time() * 1000)):
        show.tell(line, indent="  ")


def partitions(
    machine: options.Machine, json: options.Json = False, redis: options.Redis = None, namespace: options.Namespace = None
) -> None:
    """List a machine's partitions: owner, what waits, what runs.

    Example: statemq partitions resource
    """
    columns: show.Columns[Any] = {
        "PARTITION": lambda p: str(p.number),
        "OWNER": lambda p: p.owner or "nobody",
        "LEASE": lambda p: _lease(p) if p.owner else "",
        "WAITING": lambda p: str(p.waiting),
        "RUNNING": lambda p: str(p.running),
        "STREAM": lambda p: str(p.stream),
        "READY": lambda p: str(p.ready),
        "TIMERS": lambda p: str(p.timers),
        "": lambda p: "paused" if p.paused else "",
    }
    found = ask(redis, namespace, lambda client: client.partitions(machine))
    show.rows(found, columns, json, f"{machine} has no partitions")


def _lease(partition: Any) -> str:
    from statemq.codec import duration_text

    left: int = partition.lease_left_ms
    return f"{duration_text(left)} left" if left >= 0 else f"{duration_text(-left)} overdue"


def workers(
    machine: Annotated[
        str | None, typer.Argument(autocompletion=complete.machines, metavar="MACHINE", help="Only its workers.", show_default=False)
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Only those that live; exit code 1 when there is none.")] = False,
    json: options.Json = False,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """List the workers, and which partitions they own.

    As a health check: statemq workers --live

    Example: statemq workers
    """
    columns: show.Columns[Any] = {
        "WORKER": lambda w: w.id,
        "HOST": lambda w: w.host,
        "PID": lambda w: str(w.pid or ""),
        "STARTED": lambda w: show.when(w.started),
        "SEEN": lambda w: show.when(w.seen) + ("" if w.live else " (silent)"),
        "CONCURRENCY": lambda w: str(w.concurrency or ""),
        "PARTITIONS": lambda w: ranges(w.partitions),
    }
    found = [w for w in ask(redis, namespace, lambda client: client.workers(machine)) if w.live or not live]
    show.rows(found, columns, json, "no worker runs; statemq worker TARGET starts one")
    if live and not found:
        raise typer.Exit(ENDED_BADLY)


def ranges(numbers: list[int]) -> str:
    """Numbers as people write them.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2 5 7-8'
    """
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
