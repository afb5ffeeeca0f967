"""The app on granian, in this process and event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from statemq.errors import ServerError
from statemq.http.access import Access
from statemq.http.address import Address
from statemq.http.app import build_app
from statemq.http.connections import Connections, Room
from statemq.http.service import Service
from statemq.worker.files import open_files, raise_limit

log = logging.getLogger("statemq.http")

GRACE_S = 2.0
"""After the stop, how long answers under way may take. Waiting requests are answered at once; their commands go on."""

UP_WITHIN_S = 10.0


async def listen(service: Service, access: Access, address: Address, *, stop: asyncio.Event, started: Callable[[], None]) -> None:
    """Answers on ``address`` until ``stop`` is set; ``started`` is called once connections are accepted.

    Raises ServerError, PartitionMismatch, SchemaTooNew, UnsupportedServer; RedisAway never: requests are answered 503 then.
    """
    stopping = asyncio.ensure_future(stop.wait())
    starting = asyncio.ensure_future(service.start())  # what cannot work is raised here, not in a log line of the server's
    try:
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
    except BaseException:
        stopping.cancel()
        raise
    finally:
        starting.cancel()
    if not starting.done():  # asked to stop before it had begun
        await asyncio.wait([starting])
        await service.close()
        return
    settings = service.settings
    app, room = build_app(service, access), make_room(service)
    server = Server(
        app,
        address.ip,
        address.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=1024,
        backpressure=room.connections,
        http1_settings=HTTP1Settings(
            header_read_timeout=round(settings.header_within_s * 1000),
            max_buffer_size=2 * settings.max_header_bytes,  # read ahead by the piece, so this one is no exact limit
        ),
        log_enabled=False,
    )
    serving = asyncio.ensure_future(server.serve())
    watching: list[asyncio.Future[None]] = []
    try:
        await _until_up(address, serving)
        watching.append(asyncio.ensure_future(Connections(address.port, room, app.busy, settings.write_within_s).watch()))
        started()
        ended, _ = await asyncio.wait([serving, stopping, *watching], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            raise ServerError("the HTTP server ended by itself") from ended.pop().exception()
    finally:
        stopping.cancel()
        service.waiting.stop()
        server.stop()  # type: ignore[no-untyped-call]
        # a connection in the middle of its headers holds the server up: it is left behind, and ends when they are overdue
        await asyncio.wait([serving], timeout=GRACE_S)
        for watch in watching:
            watch.cancel()
        await service.close()


def make_room(service: Service) -> Room:
    """What this process has room for, once it may open as many files as the system lets it; the service lets no more wait."""
    room = Room.within(raise_limit(), len(open_files()), service.settings)
    service.waiting.limit, service.waiting.each = room.waiting, room.waiting_each
    if room.connections < service.settings.max_connections:
        log.info(
            "this process may open %d files, so it takes %d connections at one time; raise the limit for more", room.files, room.connections
        )
    return room


async def _until_up(address: Address, serving: asyncio.Future[None]) -> None:
    """Returns when connections are accepted. Raises ServerError when that does not come to pass."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(UP_WITHIN_S):
            while not serving.done():
                with contextlib.suppress(ConnectionRefusedError):
                    _, writer = await asyncio.open_connection(address.near, address.port)
                    writer.close()
                    return
                await asyncio.sleep(0.01)
    raise ServerError(f"the HTTP server did not start on {address.url}") from (serving.exception() if serving.done() else None)
