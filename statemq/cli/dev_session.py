"""`dev` while it runs: keeps its server and children alive, restarts them on save, and ends them all."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import time
from pathlib import Path

import msgspec
import typer

from statemq.cli.dev_banner import banner
from statemq.cli.dev_folder import About, Folder, from_anywhere
from statemq.cli.dev_sources import Watch
from statemq.cli.dev_target import Look, Looked
from statemq.cli.ends import say
from statemq.errors import ServerError, UnknownMachine
from statemq.python import python
from statemq.server import EmbeddedServer
from statemq.worker.crash import VARIABLE as CRASH_VARIABLE
from statemq.worker.signals import Signals
from statemq.worker.supervise import Child, Supervisor

WORKER_GRACE = "3s"
LEASE_MS = "1000"
"""No peer sees dev's only worker die, and not every system tells that its process is gone: then the next one waits for the lease to end."""

GRACE_S = 8.0
"""Ctrl-C ends all within this; what a worker could not finish goes on from its journal at the next start."""

LOOK_S = 0.5
SETTLE_S = 0.1
ANSWER_S = 0.05
HOST = "127.0.0.1"


class Wanted(msgspec.Struct, frozen=True):
    """What was asked for, checked."""

    target: str
    port: int
    namespace: str
    url: str
    """The Redis; with an embedded server known once it has started."""
    crash: float
    reload: bool
    max_crashes: int | None = None


def child_env(wanted: Wanted) -> dict[str, str]:
    """The environment of the children: the Redis goes here, since a command line is everybody's to read."""
    env = {**os.environ, "STATEMQ_REDIS": wanted.url, "STATEMQ_NAMESPACE": wanted.namespace}
    # Bytecode is told apart by whole seconds and size: a second save within the second would not be seen.
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    env.pop(CRASH_VARIABLE, None)
    return env


class Session:
    """Everything runs from ``run`` on, until a signal or a hopeless child ends it."""

    def __init__(self, wanted: Wanted, looked: Looked, folder: Folder, server: EmbeddedServer | None) -> None:
        self.wanted, self.looked, self.folder, self.server = wanted, looked, folder, server
        self.http = f"http://localhost:{wanted.port}"
        self.watch = Watch(map(Path, looked.files))
        self.looking: Look | None = None
        self.saved: list[Path] = []
        self.look_at_s = 0.0
        self.shown = self.answers = self.waits = False
        env = child_env(wanted)
        command = python("statemq")
        crash = {CRASH_VARIABLE: str(wanted.crash)} if wanted.crash else {}
        # The worker loses its Redis together with this process, so nothing is left for it to end in good order.
        work = [
            *command,
            "worker",
            wanted.target,
            "--log-transitions",
            "--grace",
            WORKER_GRACE,
            *(["--lease-ms", LEASE_MS] if server else []),
            *([] if wanted.max_crashes is None else ["--max-crashes", str(wanted.max_crashes)]),
        ]
        self.worker = Child("worker", work, env=env | crash, on_parent_death=signal.SIGKILL)
        serve = Child("HTTP", [*command, "serve", wanted.target, "--port", str(wanted.port)], env=env)
        self.supervisor = Supervisor([self.worker, serve], say=say, grace_s=GRACE_S)

    def run(self) -> int:
        """The exit code; no child is left."""
        with Signals() as signals:
            try:
                self.folder.write(self._about())
                self.supervisor.start()
                while not signals.received:
                    due_s = self._tick()
                    if self._hopeless():
                        break
                    signals.wait(due_s)
                if signals.received:
                    say("ending")
                self.supervisor.end(signals)
            finally:
                self.supervisor.kill()
                if self.looking:
                    self.looking.close()
        return signals.exit_code or self.supervisor.gave_up or 0

    def _tick(self) -> float:
        """One round over everything that may have changed; the seconds until the next."""
        due_s = self.supervisor.tick()
        self._keep_server()
        if not self.answers:
            self._look_for_answers()
        if self.wanted.reload:
            self._look_at_sources()
        until_look_s = max(0.0, self.look_at_s - time.monotonic()) if self.wanted.reload else LOOK_S
        soonest_s = min(until_look_s, LOOK_S if self.answers else ANSWER_S)
        return soonest_s if due_s is None else min(soonest_s, due_s)

    def _hopeless(self) -> bool:
        """Whether a child gave up and no save can help: it never ran, or nobody looks for saves."""
        if self.supervisor.gave_up is None:
            self.waits = False
            return False
        if not (self.shown and self.wanted.reload):
            return True
        if not self.waits:
            say("waiting for a save to start it again")
        self.waits = True
        return False

    def _keep_server(self) -> None:
        if self.server and not self.server.running:
            say("the Redis of this dev has ended; starting it again (the appended commands are kept)")
            self.server.start()

    def _look_for_answers(self) -> None:
        """Shows the banner once the worker has registered and HTTP answers."""
        if not (http_answers(self.wanted.port) and asyncio.run(self._worker_answers())):
            return
        self.answers = True
        if self.shown:
            say("restarted")
            return
        self.shown = True
        typer.echo(
            banner(
                self.looked.machines[0],
                http=self.http,
                redis=self.wanted.url,
                namespace=self.wanted.namespace,
                server=self.server is not None,
            )
        )

    async def _worker_answers(self) -> bool:
        from statemq.client import Client

        try:
            async with asyncio.timeout(2), Client(self.wanted.url, namespace=self.wanted.namespace) as client:
                workers = await client.workers(self.looked.machines[-1].name)
        except (UnknownMachine, ServerError, TimeoutError):
            return False
        return any(worker.live and worker.pid == self.worker.pid for worker in workers)

    def _look_at_sources(self) -> None:
        """A save is checked by an import in a process of its own; a good one restarts the children, a bad one is shown."""
        if self.looking:
            if looked := self.looking.poll():
                self.looking = None
                self._take(looked)
            self.look_at_s = time.monotonic() + SETTLE_S
        elif time.monotonic() >= self.look_at_s:
            if saved := self.watch.look():
                self.saved = saved
                self.looking = Look(self.wanted.target, child_env(self.wanted))
            self.look_at_s = time.monotonic() + (SETTLE_S if self.watch.unsettled or self.looking else LOOK_S)

    def _take(self, looked: Looked) -> None:
        saved = ", ".join(path.name for path in self.saved[:3]) + (", ..." if len(self.saved) > 3 else "")
        if looked.wrong:
            say(f"{saved} saved, but it cannot be used; the former code goes on\n  {looked.block()}")
            return
        say(f"{saved} saved; restarting")
        self.looked, self.answers = looked, False
        self.watch.follow(map(Path, looked.files))
        self.supervisor.restart()

    def _about(self) -> About:
        return About(
            redis=self.wanted.url,
            http=self.http,
            namespace=self.wanted.namespace,
            targets=[from_anywhere(self.wanted.target)],
            cwd=str(Path.cwd()),
            pid=os.getpid(),
        )


def http_answers(port: int) -> bool:
    """Whether something on this port speaks HTTP."""
    connection = http.client.HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/openapi.json")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    else:
        return True
    finally:
        connection.close()
