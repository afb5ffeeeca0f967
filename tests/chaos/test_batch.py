"""The seed's five calls under ``statemq dev --crash 0.4``: the same answers each time (Shows 2 and 3)."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from statemq.server.host import end_with_parent, free_port
from statemq.sync import Client
from tests.chaos.conftest import Report
from tests.chaos.fleet import ROOT
from tests.waiting import block_until

UP_WITHIN_S = 60.0
ANSWERED_WITHIN_S = 240.0
CALLS = ["a/setUp", "a/tearDown", "b/setUp", "b/setUp", "b/tearDown"]
ANSWERS = ["a is now UP", "a is now DOWN", "b is now UP", "b is already UP", "b is now DOWN"]
JOURNAL = {
    "setUp": ["allocate", "@sleep", "boot", "@sleep", "health check"],
    "tearDown": ["drain", "@sleep", "release"],
}
"""What each transition records, in order; sleeps are recorded too."""

BEGINS = re.compile(
    r"resource/(\w+) (setUp|tearDown): begins "
    r"\(attempt \d+(?:, its worker died (once|\d+ times))?(?:; (\d+) records? stands?)?\)"
)
ENDED = re.compile(r"resource/(\w+) (setUp|tearDown) \w+ → \w+ completed(?: in [^\[]*)?(?:\[(.*)\])?")


class Dev:
    """A running ``statemq dev`` of the example."""

    def __init__(self, folder: Path, *words: str, seconds: str) -> None:
        self.folder, self.port = folder, free_port()
        self.log = folder / "dev.log"
        env = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_")}
        env |= {"PYTHONPATH": str(ROOT), "RESOURCE_SECONDS": seconds}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "statemq", "dev", "statemq.examples.resource", "--port", str(self.port), *words],
                cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent(),
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, condition: Any, timeout_s: float = UP_WITHIN_S) -> None:
        block_until(lambda: condition() or self.process.poll() is not None, timeout_s)
        assert self.process.poll() is None, self.said

    def ask(self, method: str, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWERED_WITHIN_S)
        try:
            connection.request(method, path, body=b"" if method == "POST" else None, headers={"content-type": "application/json"})
            answer = connection.getresponse()
            body = json.loads(answer.read())
            assert answer.status == 200, (answer.status, body)
            return body
        finally:
            connection.close()

    def accepted(self, key: str) -> int:
        """Commands of the key that have ended, run or wait."""
        about = json.loads((self.folder / ".statemq" / "dev.json").read_text())
        with Client(about["redis"], namespace=about["namespace"]) as client:
            ended = len(client.history("resource", key, limit=1000))  # first: what ends meanwhile is missed, never counted twice
            return ended + len(client.queue("resource", key))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


class Shape:
    """How often, and how long a transition takes."""

    def __init__(self, rounds: int, seconds: str) -> None:
        self.rounds, self.seconds = rounds, seconds


@pytest.fixture
def dev(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Dev]:
    running = Dev(tmp_path, "--crash", "0.4", "--no-reload", seconds=request.getfixturevalue("shape").seconds)
    yield running
    running.close()


@pytest.mark.parametrize(
    "shape", [Shape(1, "0.6"), pytest.param(Shape(10, "5"), marks=[pytest.mark.chaos, pytest.mark.timeout(1200)])], ids=["fast", "full"]
)
def test_the_five_calls(dev: Dev, report: Report, shape: Shape) -> None:
    dev.until(lambda: "Try it:" in dev.said)
    took_s = []
    for _ in range(shape.rounds):
        began_s = time.monotonic()
        assert _batch(dev) == ANSWERS, dev.said
        took_s.append(time.monotonic() - began_s)
    assert not _repeats(dev.said), dev.said
    crashes = dev.said.count("(--crash)")
    again = sum(1 for _, _, died, _ in BEGINS.findall(dev.said) if died)
    report(
        f"five calls under --crash 0.4, {shape.seconds} s a transition: the same answers {shape.rounds} times, {min(took_s):.1f} to "
        f"{max(took_s):.1f} s each; {crashes} crashes, {again} transitions begun again, no recorded step among what ran again"
    )


def _batch(dev: Dev) -> list[Any]:
    """The five at once, but accepted in their order: each is sent when the one before is in its queue."""
    with ThreadPoolExecutor(len(CALLS)) as pool:
        answers = []
        for call in CALLS:
            key = call.partition("/")[0]
            before = dev.accepted(key)
            answers.append(pool.submit(dev.ask, "POST", f"/resource/{call}"))
            dev.until(lambda key=key, before=before: dev.accepted(key) > before)  # type: ignore[misc]
        return [answer.result(ANSWERED_WITHIN_S) for answer in answers]


def _repeats(log: str) -> list[str]:
    """Attempts that ran a step whose record stood when they began: the line of the end names the steps that ran in the last one.

    A worker that is killed just after a commit never says the end; it is over when the key's other transition is heard of.
    """
    found = []
    standing: dict[tuple[str, str], int] = {}
    for line in log.splitlines():
        heard = BEGINS.search(line) or ENDED.search(line)
        if heard:
            standing.pop((heard[1], "tearDown" if heard[2] == "setUp" else "setUp"), None)
        if began := BEGINS.search(line):
            standing[began[1], began[2]] = int(began[4] or 0)
        elif ended := ENDED.search(line):
            recorded = JOURNAL[ended[2]][: standing.pop((ended[1], ended[2]), 0)]
            ran = [step.rsplit(" ", 2)[0] for step in (ended[3] or "").split(" · ") if step]
            left = [step for step in JOURNAL[ended[2]][len(recorded) :] if step != "@sleep"]
            if ran != left:
                found.append(f"{ran} ran, {left} were left: {line}")
    return found
