"""A subscription and its payment service: whatever happens to the workers, nobody is charged twice for a month, and nobody for nothing."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from statemq.sync import Client
from tests.command_line import run_here
from tests.serving import ROOT
from tests.waiting import block_until

FORMER = """
import os, urllib.request, json, msgspec
from statemq import ANY, Context, Fail, Machine, Retry, StepFailed, transition

SHOP = os.environ["PAYMENTS"]

def pay(what: str, customer: str, month: int, key: str) -> str:
    body = json.dumps({"customer": customer, "month": month}).encode()
    request = urllib.request.Request(f"{SHOP}/{what}", body, {"Idempotency-Key": key})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())

class Data(msgspec.Struct):
    month: int = 0
    receipts: list[str] = []

class Subscription(Machine[Data, str], initial="NEW", partitions=4):
    @transition(source="NEW", target="TRIAL")
    def start(self) -> None: ...

    @transition(source=["TRIAL", "ACTIVE", "PAST_DUE"], target=["ACTIVE", "PAST_DUE"])
    async def renew(self, ctx: Context) -> int:
        month = self.data.month + 1
        receipt = await ctx.step("charge", pay, "charge", ctx.key, month, ctx.step_key("charge"), retry=Retry(attempts=2, first=0.01))
        self.state = "PAST_DUE" if receipt == "declined" else "ACTIVE"
        if self.state == "ACTIVE":
            self.data.month = month
            self.data.receipts.append(receipt)
        return self.data.month

    @transition(source=["ACTIVE", "PAST_DUE"], target="ENDED")
    async def end(self, ctx: Context) -> None:
        await ctx.step("refund", pay, "refund", ctx.key, self.data.month, ctx.step_key("refund"), retry=Retry(attempts=2, first=0.01))
"""
NEWER = FORMER.replace("    month: int = 0\n", '    month: int = 0\n    plan: str = "basic"\n').replace(
    '    @transition(source="NEW", target="TRIAL")',
    """    @transition(source=["TRIAL", "ACTIVE"])
    def upgrade(self, plan: str) -> str:
        self.data.plan = plan
        return f"{plan} from month {self.data.month + 1}"

    @transition(source="NEW", target="TRIAL")""",
)


class Payments(http.server.ThreadingHTTPServer):
    """Charges once for each idempotency key, as such services do, and counts what reached it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Till)
        self.lock = threading.Lock()
        self.charged: dict[str, str] = {}
        self.money: Counter[tuple[str, str, int]] = Counter()
        """How often somebody was charged or refunded for a month."""
        self.asked: Counter[str] = Counter()
        """Requests of each customer."""
        self.broken: set[str] = set()
        """Customers for whom it answers 500."""
        self.declined: set[str] = set()
        self.held: set[str] = set()
        """Customers whose charge is made, and whose answer then hangs until ``go``."""
        self.go = threading.Event()


class Till(http.server.BaseHTTPRequestHandler):
    server: Payments

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        customer, month, what, key = asked["customer"], asked["month"], self.path.strip("/"), self.headers["Idempotency-Key"]
        with self.server.lock:
            self.server.asked[customer] += 1
            broken = customer in self.server.broken
            if not broken and key not in self.server.charged:
                self.server.charged[key] = "declined" if customer in self.server.declined else f"{what} {customer} {month}"
                if self.server.charged[key] != "declined":
                    self.server.money[what, customer, month] += 1
        if customer in self.server.held:
            self.server.go.wait(60)
        answer = json.dumps(self.server.charged.get(key)).encode()
        try:
            self.send_response(500 if broken else 200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        except OSError:
            pass  # who asked was killed

    def log_message(self, *what: Any) -> None: ...


class Host:
    """Where the workers run, and from where people look after them."""

    def __init__(self, folder: Path, url: str, namespace: str, payments: Payments) -> None:
        self.folder, self.payments, self.workers = folder, payments, list[subprocess.Popen[bytes]]()
        shop = f"http://127.0.0.1:{payments.server_port}"
        self.env = {"STATEMQ_REDIS": url, "STATEMQ_NAMESPACE": namespace, "PAYMENTS": shop, "PATH": "", "COLUMNS": "200"}

    def worker(self, source: str) -> subprocess.Popen[bytes]:
        """A process of this version, at work."""
        folder = self.folder / f"release{len(self.workers)}"
        folder.mkdir()
        (folder / "subscription.py").write_text(source)
        words = [sys.executable, "-m", "statemq", "worker", "subscription.py", "--log-transitions"]
        with (folder / "log").open("wb") as log:
            made = subprocess.Popen(words, cwd=folder, env=self.env | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log)
        self.workers.append(made)
        block_until(lambda: b"runs" in (folder / "log").read_bytes())
        return made

    def say(self, *words: str) -> str:
        done = run_here(*words, env=self.env)
        assert done.returncode == 0, (words, done)
        return done.stdout.strip()

    def ids(self, transition: str, customers: list[str], **arguments: str) -> list[str]:
        """Commands of these customers, queued."""
        given = [f"{name}={value}" for name, value in arguments.items()]
        return [self.say("send", "subscription", customer, transition, *given) for customer in customers]

    def results(self, ids: list[str]) -> list[Any]:
        with Client(self.env["STATEMQ_REDIS"], namespace=self.env["STATEMQ_NAMESPACE"]) as client:
            return [client.handle(id).result(timeout=60) for id in ids]

    def row(self, customer: str) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(self.say("get", "subscription", customer, "--json"))
        return row


@pytest.fixture
def payments() -> Iterator[Payments]:
    with Payments() as payments:
        threading.Thread(target=payments.serve_forever, daemon=True).start()
        yield payments
        payments.go.set()
        payments.shutdown()


@pytest.fixture
def host(tmp_path: Path, url: str, namespace: str, payments: Payments) -> Iterator[Host]:
    host = Host(tmp_path, url, namespace, payments)
    yield host
    payments.go.set()
    for process in host.workers:
        process.terminate()
    for process in host.workers:
        process.wait(30)


PEOPLE = [f"c{i}" for i in range(12)]


def test_nobody_is_charged_twice(host: Host, payments: Payments) -> None:
    def for_each(what: str, customers: list[str], month: int) -> None:
        assert {payments.money[what, customer, month] for customer in customers} == {1}

    first, second = host.worker(FORMER), host.worker(FORMER)
    host.results(host.ids("start", PEOPLE))

    # all charges were made, and no answer was heard, when a worker is killed and its peer takes over
    payments.held.update(PEOPLE)
    ids = host.ids("renew", PEOPLE)
    block_until(lambda: all(payments.asked[customer] for customer in PEOPLE))
    first.kill()
    first.wait()
    payments.held.clear()
    payments.go.set()
    assert host.results(ids) == [1] * len(PEOPLE)
    for_each("charge", PEOPLE, 1)
    assert sum(payments.asked.values()) > len(PEOPLE), "the killed worker's were asked for again"

    # the service fails for good for three; a person tries the dead letters again, one of them twice at once
    payments.broken.update(PEOPLE[:3])
    ids = host.ids("renew", PEOPLE)
    assert host.results(ids[3:]) == [2] * len(PEOPLE[3:])
    block_until(lambda: len(host.say("failed", "list", "subscription", "--json").splitlines()) == 3)
    payments.broken.clear()
    host.say("failed", "retry", "subscription", "--all")
    host.say("failed", "retry", "subscription", "--all")
    block_until(lambda: all(host.row(customer)["data"]["month"] == 2 for customer in PEOPLE))
    for_each("charge", PEOPLE, 2)

    # a card is declined, and the next month's dunning succeeds
    payments.declined.add("c0")
    assert host.results(host.ids("renew", ["c0"])) == [2]
    assert host.row("c0")["state"] == "PAST_DUE"
    payments.declined.clear()
    assert host.results(host.ids("renew", ["c0"])) == [3]
    for_each("charge", ["c0"], 3)

    # a rolling deployment of a class with one more field and one more transition, in the middle of charges
    payments.go.clear()
    payments.held.update(PEOPLE[1:])
    ids = host.ids("renew", PEOPLE[1:])
    host.worker(NEWER)
    upgrades = host.ids("upgrade", PEOPLE, plan="gold")
    host.worker(NEWER)
    second.terminate()
    payments.held.clear()
    payments.go.set()
    assert host.results(ids) == [3] * len(PEOPLE[1:])
    assert host.results(upgrades) == ["gold from month 4"] * len(PEOPLE)
    for_each("charge", PEOPLE, 3)
    assert {host.row(customer)["data"]["plan"] for customer in PEOPLE} == {"gold"}

    # and the end: a refund each
    host.results(host.ids("end", PEOPLE))
    for_each("refund", PEOPLE, 3)
    assert set(payments.money.values()) == {1}
    assert {host.row(customer)["state"] for customer in PEOPLE} == {"ENDED"}
