"""Waiting for a command: on a terminal its steps, queue and retries are shown live on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

from statemq.cli.ends import Remark, command, remark_lines, resume_line, say
from statemq.cli.fold import fold
from statemq.cli.status import ENDED, headline, progress
from statemq.errors import Pending, ServerError, Unknown

if TYPE_CHECKING:
    from statemq.client.client import Client, Handle
    from statemq.records import CommandStatus, Outcome

LOOK_S = 0.15
SHOW_AFTER_S = 0.3
"""What ends sooner is not shown."""
EXPECT_WORKER_S = 2.0
"""A command that nobody has taken up by then gets a remark why."""


async def wait(client: Client, handle: Handle[Any], timeout: float | None) -> Outcome:
    """The outcome. Raises Pending after ``timeout`` seconds, Unknown for an id nobody knows."""
    watch = _Screen(client, handle.id) if sys.stderr.isatty() else _Watch(client, handle.id)
    watching = asyncio.create_task(watch.run())
    try:
        watch.outcome = await _outcome(client, handle, timeout)
        return watch.outcome
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _outcome(client: Client, handle: Handle[Any], timeout: float | None) -> Outcome:
    """With a last look when the time is up, so that a wait of no time is a look."""
    try:
        return await handle.outcome(timeout)
    except Pending:
        if (ended := (await client.show(handle.id)).outcome) is None:
            raise
        return ended


class _Watch:
    """Says on stderr, each thing once, why nothing happens and what went wrong."""

    def __init__(self, client: Client, id: str) -> None:
        self.client, self.id = client, id
        self.began = time.monotonic()
        self.outcome: Outcome | None = None
        self.said: dict[str, Remark] = {}

    async def run(self) -> None:
        await asyncio.sleep(EXPECT_WORKER_S)
        while True:
            try:
                status = await self.client.show(self.id)
                self.say_once("failed", self.trouble(status))
                self.say_once("waits", await self.obstacle(status))
            except ServerError as error:
                self.say_once("waits", Remark(f"{error}; still waiting"))
            except Unknown:  # it ends just now: the outcome tells
                pass
            await asyncio.sleep(EXPECT_WORKER_S)

    def say_once(self, kind: str, why: Remark | None) -> None:
        if why and why != self.said.get(kind):
            self.said[kind] = why
            self.tell(why)

    def tell(self, why: Remark) -> None:
        say(why.text, *why.copied)

    def trouble(self, status: CommandStatus) -> Remark | None:
        """Why its last attempt failed, if one has."""
        if status.status in ENDED:
            return None
        if status.retrying and not status.error:
            step = status.retrying[-1]
            return Remark(f"step {step.name} failed and is tried again: {step.error}")
        if not status.error:
            return None
        return Remark(f"attempt {status.attempts} failed: {status.error}" if status.attempts else status.error)

    async def obstacle(self, status: CommandStatus) -> Remark | None:
        """What keeps a command from being taken up, if anything does."""
        if status.status not in ("queued", "waiting"):
            return None
        if not await self.client.live_workers(status.machine):
            return Remark(f"no live worker for {status.machine}; waiting for one ({command()} worker TARGET starts it)")
        if status.paused:
            line = resume_line(status.paused)
            return Remark(f"{status.paused} is paused; waiting ({line})", (line,))
        if status.behind:
            return self.ahead(status)
        return None

    def ahead(self, status: CommandStatus) -> Remark | None:
        return Remark(f"waits behind {status.behind}")


class _Screen(_Watch):
    """Draws the command's progress until it ends, and leaves the last picture."""

    def __init__(self, client: Client, id: str) -> None:
        super().__init__(client, id)
        self.remark: Remark | None = None

    def tell(self, why: Remark) -> None:
        self.remark = why

    def trouble(self, status: CommandStatus) -> Remark | None:
        return None  # the picture has it

    async def run(self) -> None:
        await asyncio.sleep(SHOW_AFTER_S)
        from rich.console import Console
        from rich.live import Live

        remarks = asyncio.create_task(super().run())
        status: CommandStatus | None = None
        with Live(console=Console(stderr=True), auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
            try:
                while True:
                    with contextlib.suppress(ServerError, Unknown):  # said by the remark, told by the outcome
                        seen = await self.client.show(self.id)
                        status = seen if seen.status not in ENDED or status is None else status
                    if status:
                        live.update(self.picture(status, *live.console.size), refresh=True)
                    await asyncio.sleep(LOOK_S)
            finally:
                remarks.cancel()
                if status:
                    live.update(self.picture(status, *live.console.size), refresh=True)

    def ahead(self, status: CommandStatus) -> Remark | None:
        return None  # the picture has it

    def picture(self, status: CommandStatus, wide: int, high: int) -> Any:
        """No larger than the screen: of many steps the last ones."""
        from rich.text import Text

        if self.outcome is not None:
            status = msgspec.structs.replace(status, status=self.outcome.outcome, outcome=self.outcome)
        took = time.monotonic() - self.began
        title = fold(f"{headline(status)}  ({took:.1f} s)", wide)
        told = [part for line in progress(status, int(time.time() * 1000)) for part in fold(line, wide - 2)]
        lines = [f"  {line}" for line in told]
        if self.outcome is None and self.remark:
            lines += remark_lines(self.remark.text, "  ! ", wide, self.remark.copied)
        room = max(2, high - len(title) - 1)
        return Text("\n".join([*title, *(lines if len(lines) <= room else ["  …", *lines[1 - room :]])]))
