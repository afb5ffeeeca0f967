"""What ``dev`` does before and after its session: what can be known to be wrong is said, its Redis started and stopped."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import msgspec

from statemq.cli.dev_folder import Folder
from statemq.cli.dev_session import Session, Wanted, child_env
from statemq.cli.dev_target import Look, Looked
from statemq.errors import ServerError, UsageError
from statemq.server import EmbeddedServer
from statemq.server.binary import find_server
from statemq.server.host import is_free


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
        server = EmbeddedServer(folder.redis, port=last if last and is_free(last) else None, password=folder.password())
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
    from statemq.client.client import Client

    async with Client(wanted.url, namespace=wanted.namespace) as client:
        await client.machines()
