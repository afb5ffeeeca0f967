"""A client that answers as it is told, and the app on it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import falcon.testing
import msgspec

from statemq import Context, Machine, query, transition
from statemq.client.client import Client
from statemq.codec import command_id, encode
from statemq.config import HttpSettings
from statemq.errors import Pending, StatemqError, Unknown, UnknownMachine
from statemq.http.access import Access, Tokens
from statemq.http.app import build_app
from statemq.http.service import Service
from statemq.records import CommandStatus, Instance, MachineInfo, Outcome, Queued


class Shelf(msgspec.Struct):
    size: int = 0


class Resource(Machine[Shelf], initial="DOWN"):
    @transition(source="DOWN", target="UP")
    async def setUp(self, ctx: Context, size: int = 1) -> str:
        """Brings the resource up."""
        return f"{self.key} is now UP"

    @transition(source="UP", target="DOWN")
    async def tearDown(self, ctx: Context) -> str:
        return f"{self.key} is now DOWN"

    @query
    def room(self, least: int, names: list[str] | None = None, strict: bool = False) -> dict[str, int]:
        """How much room there is."""
        return {"room": self.data.size}


class Sent(msgspec.Struct):
    """What the app gave to ``send``."""

    machine: str
    key: str
    transition: str
    args: Any
    options: dict[str, Any]


class FakeHandle:
    def __init__(self, client: FakeClient, id: str) -> None:
        self.client, self.id = client, id

    async def outcome(self, timeout: float | None = None) -> Outcome:
        try:
            async with asyncio.timeout(timeout):
                await self.client.ended.wait()
        except TimeoutError:
            raise Pending("it goes on", id=self.id) from None
        return self.known()

    async def status(self) -> CommandStatus:
        return CommandStatus(self.id, "running", outcome=self.known() if self.client.late else None)

    def known(self) -> Outcome:
        outcome = self.client.outcome
        if isinstance(outcome, Exception):
            raise outcome
        return msgspec.structs.replace(outcome, id=self.id)


class FakeClient:
    """Set ``fault`` for what every call after ``connect`` raises, ``outcome`` for how commands end.

    Clear ``ended`` and commands go on for ever.
    """

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.fault: StatemqError | None = None
        self.connect_fault: StatemqError | None = None
        self.outcome: Outcome | Exception = Outcome("", "completed", result=msgspec.Raw(b'"a is now UP"'))
        self.ended = asyncio.Event()
        self.ended.set()
        self.late = False
        """Whether outcomes are there to be asked for, though nobody heard of them."""
        self.instance = Instance("resource", "a", "DOWN")
        self.queued: list[Queued] = []
        self.status: CommandStatus | None = None
        self.said = "cancelled"
        self.live = 1
        self.asked: list[Any] = []
        self.connected = False
        self.hang = asyncio.Event()

    async def connect(self) -> FakeClient:
        if self.connect_fault is not None:
            raise self.connect_fault
        self.connected = True
        return self

    async def close(self) -> None:
        self.connected = False

    async def send(
        self, machine: str, key: str, transition: str, args: Any = None, *, timeout: float | None = None, **options: Any
    ) -> FakeHandle:
        assert timeout is not None
        self._check()
        self.sent.append(Sent(machine, key, transition, args, options))
        return FakeHandle(self, command_id(machine, 7, 1_700_000_000_000))

    def handle(self, id: str) -> FakeHandle:
        return FakeHandle(self, id)

    async def get(self, machine: str, key: str) -> Instance:
        self._check()
        return msgspec.structs.replace(self.instance, machine=machine, key=key)

    async def queue(self, machine: str, key: str | None = None, limit: int = 100) -> list[Queued]:
        self._check()
        return self.queued[:limit]

    async def show(self, id: str) -> CommandStatus:
        self._check()
        if self.status is None:
            raise Unknown("nothing is known of it", id=id)
        return self.status

    async def query(self, machine: str, key: str, name: str, args: Any) -> Any:
        self._check()
        self.asked.append((machine, key, name, args))
        return {"room": 3}

    async def cancel(self, id: str, *, by: str | None = None) -> str:
        self._check()
        return self.said

    async def live_workers(self, machine: str) -> int:
        self._check()
        return self.live

    async def graph(self, machine: str) -> dict[str, Any]:
        self._check()
        if machine not in ("order", "resource"):
            raise UnknownMachine(machine, "test", ["order", "resource"])
        return {"transitions": [{"name": "pay", "source": ["NEW"]}, {"name": "ship", "source": ["PAID"]}]}

    async def machines(self) -> list[MachineInfo]:
        self._check()
        return [MachineInfo("resource", 16, "DOWN", ["DOWN", "UP"], ["setUp", "tearDown"])]

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault


class Edge:
    """The app, its fake client, and requests to it."""

    def __init__(self, *, tokens: Tokens | None = None, allowed_hosts: tuple[str, ...] = (), settings: HttpSettings | None = None) -> None:
        self.client = FakeClient()
        self.service = Service([Resource], lambda: cast(Client, self.client), settings or HttpSettings())
        self.access = Access(tokens, allowed_hosts)
        self.app = build_app(self.service, self.access)

    def ask(self, method: str, path: str, *, body: bytes | str | Any = b"", headers: dict[str, str] | None = None) -> falcon.testing.Result:
        sent = dict(headers or {})
        if not isinstance(body, bytes | str):
            body = encode(body)
            sent.setdefault("Content-Type", "application/json")
        path, _, query_string = path.partition("?")
        return falcon.testing.simulate_request(
            self.app, method, path, query_string=query_string, body=body, headers=sent, host=sent.pop("Host", "localhost"), port=8080
        )

    def get(self, path: str, **kwargs: Any) -> falcon.testing.Result:
        return self.ask("GET", path, **kwargs)

    def post(self, path: str, **kwargs: Any) -> falcon.testing.Result:
        return self.ask("POST", path, **kwargs)


def problem(result: falcon.testing.Result, status: int, error: str) -> dict[str, Any]:
    """The body of a problem, whose form was checked."""
    body: dict[str, Any] = result.json
    assert (result.status_code, body["error"]) == (status, error), body
    assert result.headers["content-type"] == "application/problem+json"
    assert body["status"] == status and body["title"] and body["detail"]
    assert "Traceback" not in result.text and "/work" not in result.text
    return body
