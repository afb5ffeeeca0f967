"""A serving process as it is from outside: a process of its own, spoken to by the standard library."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from statemq.config import WorkerSettings
from statemq.worker.daemon import Worker
from tests.integration.http_machines import Gate

TARGET = str(Path(__file__).parent / "integration" / "http_machines.py")
ROOT = Path(__file__).parents[1]
SERVE = """
import sys
from statemq.errors import StatemqError
from statemq.http.server import serve
target, url, namespace, host, port, workers = sys.argv[1:]
try:
    sys.exit(serve([target], url, namespace, host=host, port=int(port), workers=int(workers), say=lambda line: print(line, flush=True)))
except StatemqError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""

LOWERED = """
import statemq.http.app as app
app.HttpSettings = lambda whole=app.HttpSettings: whole(**{})
"""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Edge:
    """A serving process. ``before``: what it runs first; ``settings``: of HttpSettings, other than the defaults."""

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        workers: int = 1,
        token: str = "",
        before: str = "",
        target: Path | str = TARGET,
        **settings: float,
    ) -> None:
        env = {name: value for name, value in os.environ.items() if name != "STATEMQ_TOKEN"} | {"PYTHONPATH": str(ROOT)}
        code = before + (LOWERED.format(settings) if settings else "") + SERVE
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                code,
                str(target),
                url,
                namespace,
                host,
                str(port),
                str(workers),
            ],
            env=env | ({"STATEMQ_TOKEN": token} if token else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()
        self.port = int(self.said.rpartition(":")[2]) if self.said else 0

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None, timeout_s: float = 30
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read().decode())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, named(headers))

    def post(self, path: str, arguments: Any = None, **headers: str) -> Answer:
        sent = {"Content-Type": "application/json"} | named(headers)
        return self.ask("POST", path, b"" if arguments is None else json.dumps(arguments).encode(), sent)

    def end(self) -> tuple[int, str]:
        """The exit code and what was said on stderr, after SIGTERM if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def answers(edge: Edge) -> bool:
    try:
        return edge.get("/-/health").status == 200
    except OSError:
        return False


@contextlib.contextmanager
def working_thread(url: str, namespace: str, machine: type[Any] = Gate) -> Iterator[Worker]:
    """A worker in a thread and event loop of its own."""
    ready = threading.Event()
    held: list[tuple[Worker, asyncio.AbstractEventLoop]] = []

    async def work() -> None:
        held.append((Worker([machine], url, namespace=namespace, settings=WorkerSettings(grace_s=1)), asyncio.get_running_loop()))
        ready.set()
        await held[0][0].run()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    assert ready.wait(10)
    worker, loop = held[0]
    yield worker
    loop.call_soon_threadsafe(worker.stop)
    thread.join(20)
    assert not thread.is_alive()
