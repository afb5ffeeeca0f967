"""The stage of a bench: a Redis, a namespace of its own, worker and client processes; all gone afterwards."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from statemq.bench.figures import Balance, middle
from statemq.bench.jobs import Done, Job, Wiring
from statemq.bench.machines import target
from statemq.bench.probe import Probe
from statemq.bench.processes import Process, Talker
from statemq.codec import short_id
from statemq.errors import ServerError
from statemq.server import EmbeddedServer

P = TypeVar("P", bound=Process)

Tell = Callable[[str], None]
"""Is told what is being measured now."""

WARM_UP_S = 1.0
READY_WITHIN_S = 30.0
LOOK_S = 0.005


class Round(msgspec.Struct, frozen=True):
    """One measured job and the CPU seconds that it took: of the server, the worker, the client."""

    done: Done
    server_s: float
    worker_s: float
    client_s: float

    @property
    def rate(self) -> float:
        return self.done.in_time / self.done.seconds

    def us(self, seconds: float) -> float:
        """Microseconds a command."""
        return seconds * 1e6 / max(1, self.done.commands)

    @property
    def total_us(self) -> float:
        return self.us(self.server_s + self.worker_s + self.client_s)


class Stage:
    """``url`` names a running Redis; without one a server is started in a fresh folder, AOF and everysec."""

    def __init__(self, url: str | None, seconds: float, tell: Tell) -> None:
        self.seconds, self.tell = seconds, tell
        self.rounds = 3 if seconds < 5 else 5
        self.namespace = f"bench-{short_id()}"
        self._folder = tempfile.TemporaryDirectory(prefix="statemq-bench-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        # a rewrite of the AOF would fall on one of the two sides only
        self.server = None if url else EmbeddedServer(self.folder / "redis", config=["--auto-aof-rewrite-percentage", "0"])
        self.url = url or ""
        self.processes: list[Process] = []
        self._checked: dict[tuple[str, Talker], Balance] = {}

    def __enter__(self) -> Self:
        try:
            if self.server is not None:
                self.url = self.server.start()
            self.probe = Probe(self.url, self.namespace)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.end(*self.processes)
            if self.server is None:
                self.probe.sweep()
            self.probe.close()
        finally:
            self._leave()

    def _leave(self) -> None:
        if self.server is not None:
            self.server.kill()  # nobody needs what it holds
        self._folder.cleanup()

    # -- processes -------------------------------------------------------------------------------------

    def worker(self, *machines: str, options: tuple[str, ...] = ()) -> Process:
        """A ``statemq worker`` as a user starts it: with its default settings unless ``options`` says otherwise."""
        return self._keep(self._statemq(f"worker {'+'.join(machines)[:40]}", ["worker", *map(target, machines), *options]))

    def http(self, port: int, *machines: str) -> Process:
        return self._keep(self._statemq("http", ["serve", *map(target, machines), "--port", str(port)]))

    def client(self, side: str = "statemq", http: str = "") -> Talker:
        return self._keep(Talker(f"{side} client", "statemq.bench.client", self._wiring(side, http), self.folder))

    def bare_worker(self) -> Talker:
        return self._keep(Talker("raw worker", "statemq.bench.raw", self._wiring("raw", ""), self.folder))

    def end(self, *processes: Process) -> None:
        for process in processes:
            self.processes.remove(process)
            process.end()

    def kill(self, process: Process) -> None:
        self.processes.remove(process)
        process.kill()

    def _statemq(self, name: str, words: list[str]) -> Process:
        env = {"STATEMQ_REDIS": self.url, "STATEMQ_NAMESPACE": self.namespace, "STATEMQ_TOKEN": ""}
        return Process(name, ["-m", "statemq", *words], self.folder, env)

    def _keep(self, process: P) -> P:
        self.processes.append(process)
        return process

    def _wiring(self, side: str, http: str) -> Wiring:
        return Wiring(side=side, url=self.url, namespace=self.namespace, http=http)

    # -- measuring -------------------------------------------------------------------------------------

    def warm_up(self, client: Talker, job: Job) -> None:
        client.ask(msgspec.structs.replace(job, seconds=min(WARM_UP_S, max(0.2, self.seconds / 2))))

    def round(self, client: Talker, worker: Process, job: Job) -> Round:
        server_s, worker_s, client_s = self.probe.cpu_s(), worker.cpu_s() or 0.0, client.cpu_s() or 0.0
        done = client.ask(msgspec.structs.replace(job, seconds=self.seconds / self.rounds))
        return Round(done, self.probe.cpu_s() - server_s, (worker.cpu_s() or 0.0) - worker_s, (client.cpu_s() or 0.0) - client_s)

    def check(self, work: str, client: Talker) -> None:
        """Notes how answers and data agree, all that this client was ever answered."""
        self._checked[work, client] = client.ask(Job(kind="check")).balance

    @property
    def balances(self) -> dict[str, Balance]:
        """By work; several clients of one are added up."""
        found: dict[str, Balance] = {}
        for (work, _), new in self._checked.items():
            old = found.get(work, Balance())
            found[work] = Balance(
                answered=old.answered + new.answered,
                lost=old.lost + new.lost,
                extra=old.extra + new.extra,
                errors=old.errors + new.errors,
                first_error=old.first_error or new.first_error,
            )
        return found

    def until(self, what: str, holds: Callable[[], bool], within_s: float = READY_WITHIN_S) -> None:
        deadline_s = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > deadline_s:
                raise ServerError(f"bench waited {within_s:.0f} s for {what}")
            time.sleep(LOOK_S)


def middle_rate(rounds: list[Round]) -> float:
    return middle(r.rate for r in rounds)
