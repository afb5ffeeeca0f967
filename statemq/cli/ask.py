"""The panel "Ask": commands and questions to one instance."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statemq.cli import complete, options, show
from statemq.cli.arguments import read_arguments
from statemq.cli.classes import class_of, classes
from statemq.cli.connect import ask
from statemq.cli.ends import ENDED_BADLY, INTERRUPTED, hint_result, resume_line, say
from statemq.cli.escape import json_text

if TYPE_CHECKING:
    from statemq.client.client import Client, Handle
    from statemq.records import Outcome, Verdict


def call(
    machine: options.Machine,
    key: options.Key,
    transition: options.Transition,
    arguments: options.Arguments = None,
    timeout: options.Timeout = None,
    idempotency_key: options.Once = None,
    if_state: options.IfState = None,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """Run a transition, wait, print its result as JSON.

    Arguments: size=2 is read by the declared type, tags:='["a"]' is JSON; or give one JSON object, or - to read it from stdin.
    Ctrl-C and --timeout end the wait, not the command, whose id is printed.

    Example: statemq call resource a setUp size=2
    """
    from statemq.cli.follow import wait

    async def question(client: Client) -> Outcome:
        graph = await client.graph(machine)
        given = read_arguments(arguments or [], graph, transition)
        handle = await client.send(machine, key, transition, given, idempotency_key=idempotency_key, if_state=if_state)
        sent.append(handle.id)
        return await wait(client, handle, timeout)

    with _interruptible() as sent:
        outcome = ask(redis, namespace, question)
    _finish(outcome)


def send(
    machine: options.Machine,
    key: options.Key,
    transition: options.Transition,
    arguments: options.Arguments = None,
    delay: Annotated[
        float | None,
        typer.Option(parser=options.seconds, metavar="TIME", help="Run it after this time: 30s, 5m, 2h, 1d.", show_default=False),
    ] = None,
    idempotency_key: options.Once = None,
    if_state: options.IfState = None,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """Queue a transition, print its id, do not wait.

    Once the id is printed, the command is accepted and will run.

    Example: statemq send resource a tearDown --delay 1h
    """

    async def question(client: Client) -> Handle[Any]:
        graph = await client.graph(machine)
        given = read_arguments(arguments or [], graph, transition)
        return await client.send(machine, key, transition, given, idempotency_key=idempotency_key, if_state=if_state, delay=delay)

    show.out(ask(redis, namespace, question).id)


def can(
    machine: options.Machine,
    key: options.Key,
    transition: options.Transition,
    arguments: options.Arguments = None,
    target: options.Target = None,
    json: options.Json = False,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """Say whether a transition would be accepted now, and why not.

    Exit code 1 says no. Guards are asked where the class is known: --target, STATEMQ_TARGET, or the running dev's unless a Redis is named.

    Example: statemq can resource a setUp
    """
    known = classes(target, redis)

    async def question(client: Client) -> tuple[Verdict, bool]:
        graph = await client.graph(machine)
        guarded = any(one["name"] == transition and one["guard"] for one in graph["transitions"])
        return await client.can(machine, key, transition, read_arguments(arguments or [], graph, transition)), guarded

    verdict, guarded = ask(redis, namespace, question, known)
    if json:
        show.out(json_text(show.plain(verdict)))
    else:
        show.fields("allowed" if verdict.allowed else "refused", {"why": verdict.reason, "state": verdict.state})
        if not verdict.allowed and transition not in verdict.transitions:  # else the state is not why
            show.fields("allowed now: " + (", ".join(verdict.transitions) or "nothing"), {})
        if verdict.paused:
            line = resume_line(verdict.paused)
            say(f"{verdict.paused} is paused: what is sent waits ({line})", line)
        elif verdict.behind:
            say(f"what is sent waits behind {verdict.behind}")
        if guarded and not verdict.guards:
            say("guards were not asked: they run where the class is (--target)")
    if not verdict.allowed:
        raise typer.Exit(ENDED_BADLY)


def query(
    machine: options.Machine,
    key: options.Key,
    name: Annotated[
        str, typer.Argument(autocompletion=complete.queries, metavar="QUERY", help="Which question, such as status.", show_default=False)
    ],
    arguments: options.Arguments = None,
    target: options.Target = None,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """Ask about an instance's committed state; prints JSON.

    It runs here, so the class is needed: --target, STATEMQ_TARGET, or the running dev's unless a Redis is named.

    Example: statemq query resource a status --target shop.machines
    """
    cls = class_of(machine, target, redis)
    given = read_arguments(arguments or [], cls.spec.graph(), name, "query")

    async def question(client: Client) -> Any:
        return await client.query(cls, key, name, given)

    show.out(json_text(ask(redis, namespace, question, [cls])))


def result(
    id: options.Id,
    timeout: options.Timeout = None,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """Wait for a command by its id, print its result.

    Exit codes as for call. With --timeout 0 it only looks.

    Example: statemq result resource.7.01930c2e5b7a7c3e8f6a2b4c6d8e0f12 --timeout 30s
    """
    from statemq.cli.follow import wait

    async def question(client: Client) -> Outcome:
        return await wait(client, client.handle(id), timeout)

    with _interruptible() as waiting:
        waiting.append(id)
        outcome = ask(redis, namespace, question)
    _finish(outcome)


@contextlib.contextmanager
def _interruptible() -> Iterator[list[str]]:
    """Ctrl-C inside ends with 130, and with the id that was put into the list."""
    ids: list[str] = []
    try:
        yield ids
    except KeyboardInterrupt:
        for id in ids:
            say(f"{id} is not cancelled, it still waits or runs")
            hint_result(id)
        raise typer.Exit(INTERRUPTED) from None


def _finish(outcome: Outcome) -> None:
    """The result on stdout, or how it ended on stderr and exit code 1."""
    if outcome.outcome == "completed":
        show.out(json_text(outcome.result))
        return
    text = outcome.reason or outcome.code
    if outcome.error and not text.startswith(outcome.error):
        text = f"{outcome.error}: {text}"
    if outcome.attempts > 1 and not text.endswith(" attempts)"):
        text += f" (after {outcome.attempts} attempts)"
    if outcome.outcome == "rejected" and outcome.transition not in outcome.allowed:  # else the state is not why
        text += f"; allowed now: {', '.join(outcome.allowed) or 'nothing'}"
    say(text if text.startswith(outcome.outcome) else f"{outcome.outcome}: {text}")
    raise typer.Exit(ENDED_BADLY)
