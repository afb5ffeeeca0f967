"""What a shell offers for a word that is being typed. A prompt is no place for remarks: where nothing can be learnt within a second,
nothing is offered. Nor is a word that the shell would not take as it stands: a key may hold whatever its sender liked."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from statemq.cli.escape import quote
from statemq.errors import StatemqError

if TYPE_CHECKING:
    from statemq.client.client import Client

WITHIN_S = 1.0
MOST = 1000
"""Instances, commands or files that are looked at."""

Words = Iterable[str]


def machines(context: typer.Context, incomplete: str) -> list[str]:
    return _offered(incomplete, _asked(context, _names))


def keys(context: typer.Context, incomplete: str) -> list[str]:
    """Those of instances, and of what waits for its first turn."""

    async def question(client: Client) -> Words:
        machine = _machine(context)
        waiting = [row.key for row in await client.queue(machine, limit=MOST)]
        return waiting + [row.key for row in await client.list(machine, limit=MOST)]

    return _offered(incomplete, _asked(context, question))


def transitions(context: typer.Context, incomplete: str) -> list[str]:
    return _offered(incomplete, _of_graph(context, lambda graph: [one["name"] for one in graph["transitions"]]))


def queries(context: typer.Context, incomplete: str) -> list[str]:
    return _offered(incomplete, _of_graph(context, lambda graph: [one["name"] for one in graph.get("queries", ())]))


def states(context: typer.Context, incomplete: str) -> list[str]:
    return _offered(incomplete, _of_graph(context, lambda graph: graph["states"]))


def ids(context: typer.Context, incomplete: str) -> list[str]:
    """Those of commands that have not ended, and where one that has can be asked for, of the last that have."""
    ended_too = context.command.name != "cancel"

    async def question(client: Client) -> Words:
        machine, dot, _ = incomplete.partition(".")
        found: list[str] = []
        for name in [machine] if dot else await _names(client):
            found += [row.id for row in await client.queue(name, limit=MOST)]
            if ended_too:
                found += [row.id for row in await client.history(name, limit=MOST // 10)]
        return found

    return _offered(incomplete, _asked(context, question))


def letters(context: typer.Context, incomplete: str) -> list[str]:
    async def question(client: Client) -> Words:
        return [letter.letter for letter in await client.failed(_machine(context), limit=MOST // 10)]

    return _offered(incomplete, _asked(context, question))


def targets(incomplete: str) -> list[str]:
    """Files and folders; modules of the working folder and of the packages in it."""
    folder, slash, _ = incomplete.rpartition("/")
    return _offered(incomplete, [*_files(Path(folder + slash), folder + slash), *([] if slash else _modules())])


def targets_or_machines(context: typer.Context, incomplete: str) -> list[str]:
    return _offered(incomplete, [*machines(context, incomplete), *targets(incomplete)])


def _files(folder: Path, begin: str) -> Iterator[str]:
    with contextlib.suppress(OSError):  # no folder, or one of somebody else
        for entry in islice(folder.iterdir(), MOST):
            if entry.suffix == ".py":
                yield begin + entry.name
            elif entry.is_dir() and not entry.name.startswith((".", "__")):
                yield f"{begin}{entry.name}/"


def _modules() -> Iterator[str]:
    with contextlib.suppress(OSError):
        for entry in islice(Path().iterdir(), MOST):
            if entry.suffix == ".py":
                yield entry.stem
            elif (entry / "__init__.py").is_file():
                for file in islice(entry.rglob("*.py"), MOST):
                    yield ".".join(file.with_suffix("").parts).removesuffix(".__init__")


async def _names(client: Client) -> Words:
    return [machine.name for machine in await client.machines()]


def _of_graph(context: typer.Context, named: Callable[[dict[str, Any]], Words]) -> Words:
    async def question(client: Client) -> Words:
        return named(await client.graph(_machine(context)))

    return _asked(context, question)


def _machine(context: typer.Context) -> str:
    """The first argument, which has no name yet while an option's value is being typed."""
    return str(context.params.get("machine") or next(iter(context.args), ""))


def _asked(context: typer.Context, question: Callable[[Client], Awaitable[Words]]) -> Words:
    import asyncio

    from statemq.cli import connect
    from statemq.cli.find import find

    async def run() -> Words:
        async with asyncio.timeout(WITHIN_S), connect.open_client(place.url, place.namespace, ()) as client:
            return await question(client)

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            place = find(context.params.get("redis"), context.params.get("namespace"))
            return asyncio.run(run())
    except (StatemqError, OSError, ValueError):  # TimeoutError is an OSError
        return []


def _offered(incomplete: str, words: Words) -> list[str]:
    """Each once, in order; only those of one line that mean themselves to a shell, and no option."""
    return sorted({word for word in words if word.startswith(incomplete) and quote(word) == word and not word.startswith("-")})
