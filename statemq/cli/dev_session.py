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
from statemq.cli.dev_folder import PASSWORD, About, Folder, from_anywhere
from statemq.cli.dev_full import Fullness
from statemq.cli.dev_sources import Watch
from statemq.cli.dev_target import Look, Looked
from statemq.cli.ends import say
from statemq.cli.prompt import own_terminal
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
RETRY_S, LONGEST_RETRY_S = 1.0, 60.0
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
        self.full = Fullness(server)
        self.looking: Look | None = None
        self.saved: list[Path] = []
        self.look_at_s = 0.0
        self.retry_at_s, self.retry_s = 0.0, RETRY_S
        """When it is looked again whether children that were given up could run after all."""
        self.shown = self.answers = False
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
        self.worker = Child("worker", work, env=env | crash | own_terminal(), on_parent_death=signal.SIGKILL)
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
        awaited = not (self.answers or self.supervisor.held or self.supervisor.gave_up)
        if awaited:
            self._look_for_answers()
        if self.wanted.reload:
            self._look_at_sources()
        until_look_s = max(0.0, self.look_at_s - time.monotonic()) if self.wanted.reload else LOOK_S
        soonest_s = min(until_look_s, ANSWER_S if awaited else LOOK_S)
        return soonest_s if due_s is None else min(soonest_s, due_s)

    def _hopeless(self) -> bool:
        """Whether a child gave up and no save can help: it never ran, or nobody looks for saves."""
        return self.supervisor.gave_up is not None and not (self.shown and self.wanted.reload)

    def _keep_server(self) -> None:
        if self.server and not self.server.running:
            say("the Redis of this dev has ended; starting it again (the appended commands are kept)")
            self.server.start()
        if text := self.full.look():
            say(text)

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
                password=self.folder.path / PASSWORD if self.server else None,
            )
        )

    async def _worker_answers(self) -> bool:
        from statemq.client.client import Client

        try:
            async with asyncio.timeout(2), Client(self.wanted.url, namespace=self.wanted.namespace) as client:
                workers = await client.workers(self.looked.machines[-1].name)
        except (UnknownMachine, ServerError, TimeoutError):
            return False
        return any(worker.live and worker.pid == self.worker.pid for worker in workers)

    def _look_at_sources(self) -> None:
        """A save is checked by an import in a process of its own; a good one restarts the children, a bad one is shown."""
        now_s = time.monotonic()
        if self.looking:
            if looked := self.looking.poll():
                self.looking = None
                self._take(looked)
            self.look_at_s = time.monotonic() + SETTLE_S
        elif now_s >= self.look_at_s:
            if saved := self.watch.look():
                self.saved, self.retry_s = saved, RETRY_S
                self.looking = Look(self.wanted.target, child_env(self.wanted))
            elif self.supervisor.gave_up is not None and not self.supervisor.held and now_s >= self.retry_at_s:
                # A child may have met a file that was away for a moment, which nobody saved: the look tells.
                self.saved, self.retry_at_s, self.retry_s = [], now_s + self.retry_s, min(2 * self.retry_s, LONGEST_RETRY_S)
                self.watch.mark()
                self.looking = Look(self.wanted.target, child_env(self.wanted))
            self.look_at_s = time.monotonic() + (SETTLE_S if self.watch.unsettled or self.looking else LOOK_S)

    def _take(self, looked: Looked) -> None:
        names = ", ".join(path.name for path in self.saved[:3]) + (", ..." if len(self.saved) > 3 else "")
        self.watch.broken = bool(looked.wrong)
        if looked.wrong:
            goes_on = self.supervisor.hold("the code can be used")
            what = f"{names} saved, but it" if names else "the code"
            say(f"{what} cannot be used; {self._what_runs(goes_on)}\n  {looked.block()}")
            return
        say(f"{names} saved; restarting" if names else "the code can be used; starting again")
        self.looked, self.answers = looked, False
        self.watch.follow(map(Path, looked.files))
        self.supervisor.restart()

    def _what_runs(self, goes_on: list[Child]) -> str:
        """What those who run have is the former code; who does not waits for a good save."""
        if len(goes_on) == len(self.supervisor.children):
            return "the former code goes on"
        if not goes_on:
            return "nothing runs until it can"
        waits = ", ".join(child.name for child in self.supervisor.children if child not in goes_on)
        return f"the former code goes on in {', '.join(child.name for child in goes_on)}; {waits} does not run until it can"

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
