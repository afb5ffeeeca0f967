"""``statemq dev TARGET``: a Redis, a worker and HTTP for a machine that is being written, with no set-up."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from statemq.cli.dev_folder import Folder
from statemq.cli.dev_session import Session, Wanted, child_env
from statemq.cli.dev_target import Look, Looked
from statemq.config import DEFAULT_NAMESPACE, check_namespace
from statemq.errors import ServerError, UsageError
from statemq.server import EmbeddedServer
from statemq.server.binary import find_server
from statemq.server.host import is_free
from statemq.worker.crash import probability

DATA = Path(".statemq")


def command(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="package.module, package.module:Class or a .py file.", show_default=False)
    ],
    port: Annotated[int, typer.Option("--port", min=1, max=65535, metavar="N", help="Where HTTP listens, on this machine only.")] = 8080,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Where the data is kept between runs.")] = DATA,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was kept.")] = False,
    crash: Annotated[
        str, typer.Option("--crash", metavar="P", help="kill -9 the worker in the middle of this share of transitions, as 0.4.")
    ] = "0",
    no_reload: Annotated[bool, typer.Option("--no-reload", help="Do not restart when a source file is saved.")] = False,
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis", metavar="URL", help="Use this Redis (default: STATEMQ_REDIS) instead of one of its own.", show_default=False
        ),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", metavar="NAME", help="Default: STATEMQ_NAMESPACE, statemq.", show_default=False)
    ] = None,
) -> None:
    """Run everything for TARGET: a Redis of its own, a worker and HTTP; restart on save; Ctrl-C ends it.

    --crash shows how transitions go on after their worker was killed. The data is kept until --fresh.

    Example: statemq dev order.py
    """
    wanted = Wanted(
        target=target,
        port=port,
        namespace=check_namespace(namespace or os.environ.get("STATEMQ_NAMESPACE") or DEFAULT_NAMESPACE),
        url=redis or os.environ.get("STATEMQ_REDIS") or "",
        crash=probability(crash),
        reload=not no_reload,
    )
    raise typer.Exit(dev(wanted, data, fresh))


def dev(wanted: Wanted, data: Path, fresh: bool) -> int:
    """Runs until it is ended; the exit code. Whatever can be known to be wrong is said before anything starts."""
    folder = Folder(data)
    folder.check_free()
    looked = check(wanted, fresh)
    folder.open()
    try:
        if wanted.url:
            return Session(wanted, looked, folder, None).run()
        if fresh:
            folder.forget()
        last = folder.last_port()
        server = EmbeddedServer(folder.redis, port=last if last and is_free(last) else None)
        with server:
            folder.remember_port(server.port)
            return Session(msgspec.structs.replace(wanted, url=server.url), looked, folder, server).run()
    finally:
        folder.close()


def check(wanted: Wanted, fresh: bool) -> Looked:
    """What the target declares. Raises UsageError for what cannot work, ServerError for a Redis that is not there."""
    if fresh and wanted.url:
        raise UsageError("--fresh forgets the data of dev's own Redis; with --redis or STATEMQ_REDIS there is none")
    if any(importlib.util.find_spec(name) is None for name in ("falcon", "granian")):
        raise UsageError('dev serves HTTP, which needs more packages: pip install "statemq[web]"')
    if not is_free(wanted.port):
        raise UsageError(f"port {wanted.port} is taken by another program; choose another with --port")
    if not wanted.url:
        try:
            find_server()
        except ServerError as error:
            raise UsageError(f"{error}, or name a running one with --redis") from error
    looked = Look(wanted.target, child_env(wanted)).wait()
    if looked.wrong:
        raise UsageError(looked.block())
    if wanted.url:
        asyncio.run(reach(wanted))
    return looked


async def reach(wanted: Wanted) -> None:
    """Returns when the Redis answers. Raises ServerError."""
    from statemq.client import Client

    async with Client(wanted.url, namespace=wanted.namespace) as client:
        await client.machines()
