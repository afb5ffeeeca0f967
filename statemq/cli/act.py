"""The panel "Act": an operator's verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from statemq.cli import complete, options, show
from statemq.cli.connect import ask
from statemq.cli.ends import ENDED_BADLY, USAGE, Remark, resume_line, say, to_copy
from statemq.cli.escape import clean
from statemq.errors import Unknown, UsageError

if TYPE_CHECKING:
    from statemq.client.client import Client
    from statemq.records import DeadLetter

failed = typer.Typer(invoke_without_command=True)


@failed.callback()
def failed_help(context: typer.Context) -> None:
    """List, retry or discard commands that failed for good."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(USAGE)


Letters = Annotated[
    list[str] | None,
    typer.Argument(
        autocompletion=complete.letters, metavar="NAME", help="Names from failed list, such as 7/1732450000000-0.", show_default=False
    ),
]
All = Annotated[bool, typer.Option("--all", help="All of the machine's.")]


def cancel(id: options.Id, redis: options.Redis = None, namespace: options.Namespace = None) -> None:
    """Cancel a command.

    One that waits for its turn ends at once. One that has begun is asked: what it awaits is cancelled where it stands, its instance
    stays as it is, and steps that have run are not undone. In a paused instance that is when it is resumed.

    Example: statemq cancel resource.7.01930c2e5b7a7c3e8f6a2b4c6d8e0f12
    """
    answer, said = ask(redis, namespace, lambda client: _cancel(client, id))
    if answer == "ended":
        look = to_copy("result", id)
        say(f"{id} has ended already; {look} tells how", look)
        raise typer.Exit(ENDED_BADLY)
    show.out(answer)
    if said:
        say(said.text, *said.copied)


async def _cancel(client: Client, id: str) -> tuple[str, Remark | None]:
    """The answer; and, if it was asked to end, when it will."""
    answer = await client.cancel(id)
    if answer != "asked":
        return answer, None
    try:
        status = await client.show(id)
    except Unknown:  # it has ended just now
        return answer, None
    if name := status.paused:
        line = resume_line(name)
        return answer, Remark(f"{name} is paused: it ends when that is resumed ({line})", (line,))
    return answer, Remark("it has begun, and is being ended")


def empty(machine: options.Machine, key: options.Key, redis: options.Redis = None, namespace: options.Namespace = None) -> None:
    """Cancel all that waits in a key's queue.

    Delayed commands, too; what is sent meanwhile may stay. What has begun is left to run and is named, to be cancelled by its id.

    Example: statemq empty resource a
    """
    emptied = ask(redis, namespace, lambda client: client.empty(machine, key))
    show.tell(f"{emptied.cancelled} command{'' if emptied.cancelled == 1 else 's'} of {machine}/{key} cancelled")
    for id in emptied.begun[:10]:
        line = to_copy("cancel", id)
        say(f"{id} has begun and is left to run: {line} ends it", line)


def pause(machine: options.Machine, key: options.MaybeKey = None, redis: options.Redis = None, namespace: options.Namespace = None) -> None:
    """Let nothing new begin, of a machine or one instance.

    Commands are still accepted, and wait.

    Example: statemq pause resource a
    """
    ask(redis, namespace, lambda client: client.pause(machine, key))
    show.tell(f"{_named(machine, key)} is paused")


def resume(
    machine: options.Machine, key: options.MaybeKey = None, redis: options.Redis = None, namespace: options.Namespace = None
) -> None:
    """Let a paused machine or instance run again.

    Example: statemq resume resource a
    """
    ask(redis, namespace, lambda client: client.resume(machine, key))
    show.tell(f"{_named(machine, key)} is resumed")


def _named(machine: str, key: str | None) -> str:
    return machine if key is None else f"{machine}/{key}"


@failed.command("list")
def failed_list(
    machine: options.Machine,
    limit: options.Limit = 100,
    traceback: Annotated[bool, typer.Option("--traceback", help="With the traceback of each.")] = False,
    json: options.Json = False,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """List the commands that failed for good, the latest last.

    NAME is what retry and discard take.

    Example: statemq failed list resource
    """
    columns: show.Columns[Any] = {
        "NAME": lambda f: f.letter,
        "AT": lambda f: show.when(f.at),
        "KEY": lambda f: f.key,
        "TRANSITION": lambda f: f.transition,
        "ATTEMPTS": lambda f: str(f.attempts),
        "REASON": lambda f: f"{f.error}: {f.reason}" if f.error and not f.reason.startswith(f.error) else f.reason,
        "ID": lambda f: f.id,
    }
    found = ask(redis, namespace, lambda client: client.failed(machine, limit=limit))
    show.rows(found, columns, json, f"no command of {machine} has failed")
    if traceback and not json:
        for letter in found:
            show.out("")
            show.tell(f"{letter.letter}  {letter.id}")
            for line in letter.traceback.splitlines():
                show.tell(line, indent="  ")


@failed.command("retry")
def failed_retry(
    machine: options.Machine,
    letters: Letters = None,
    every: All = False,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """Send failed commands again; prints the new ids.

    They are new commands, at the end of their instance's queue, with the arguments, conditions and idempotency key of the failed ones:
    whoever sends a failed one again with that key hears of the new one. What cannot be retried stays, and is told why.

    Example: statemq failed retry resource --all
    """
    chosen = _chosen(letters, every)
    ids, stay = ask(redis, namespace, lambda client: _retry(client, machine, chosen))
    for id in ids:
        show.out(clean(id))
    for letter in stay:
        say(f"{letter.letter} cannot be retried: {letter.unfit}")


async def _retry(client: Client, machine: str, chosen: list[str] | None) -> tuple[list[str], list[DeadLetter]]:
    """The new ids; and, if all were meant, the letters that stay."""
    ids = await client.failed_retry(machine, chosen)
    return ids, [] if chosen is not None else [letter for letter in await client.failed(machine) if letter.unfit]


@failed.command("discard")
def failed_discard(
    machine: options.Machine,
    letters: Letters = None,
    every: All = False,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """Forget failed commands; prints how many.

    Example: statemq failed discard resource 7/1732450000000-0
    """
    chosen = _chosen(letters, every)
    show.out(str(ask(redis, namespace, lambda client: client.failed_discard(machine, chosen))))


def _chosen(letters: list[str] | None, every: bool) -> list[str] | None:
    """The letters named, or None for all. Raises UsageError unless it is one of both."""
    if bool(letters) == every:
        raise UsageError("name the failed commands (as failed list shows them), or say --all")
    return letters or None
