"""Random commands from four client processes while workers are killed, stopped, ended and started every second (Show 6)."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from statemq import Client
from statemq.server.host import end_with_parent
from tests.chaos.conftest import Report
from tests.chaos.evidence import gather
from tests.chaos.fleet import ROOT, Fleet, Member
from tests.chaos.judge import Sent, faults

Launch = Callable[..., Fleet]
CLIENTS = 4
WORKERS = 3
LEASE_MS = 1500
DEED_EVERY_S = 1.0
ENDS_WITHIN_S = 600.0


class Size(msgspec.Struct, frozen=True):
    commands: int
    keys: int
    seconds: float
    """How long the clients take about to send them."""


FAST = Size(1_500, 40, 6.0)
FULL = Size(20_000, 200, 90.0)


@pytest.mark.parametrize("size", [FAST, pytest.param(FULL, marks=[pytest.mark.chaos, pytest.mark.timeout(1200)])], ids=["fast", "full"])
async def test_every_command_is_applied_once_in_order(
    client: Client, launch: Launch, tmp_path: Path, report: Report, seed: int, size: Size
) -> None:
    fleet = launch(WORKERS, lease_ms=LEASE_MS)
    await fleet.settled()
    producers = [_produce(client, tmp_path, number, seed, size) for number in range(CLIENTS)]
    began_s = time.monotonic()
    try:
        await Nemesis(fleet, random.Random(seed)).rage(lambda: any(p.poll() is None for p in producers))
    finally:
        for p in producers:
            if p.poll() is None:
                p.kill()
            p.wait()
    took_s = time.monotonic() - began_s
    sent = [
        msgspec.json.decode(line, type=Sent) for n in range(CLIENTS) for line in _out(tmp_path, n).read_bytes().splitlines()
    ]  # fmt: skip
    assert [p.returncode for p in producers] == [0] * CLIENTS, [_log(tmp_path, n).read_text()[-2000:] for n in range(CLIENTS)]
    assert len(sent) == size.commands
    evidence = await gather(client, fleet, sent)
    found = faults(evidence)
    assert not found, f"seed {seed}: {len(found)} faults, the first: " + "\n".join(found[:20])
    deeds = Counter(d.what for d in fleet.deeds)
    assert deeds["kill"] and deeds["stop"], "nothing happened"
    assert fleet.taken("died"), "no takeover after a death"
    ends = Counter(s.outcome for s in sent)
    report(
        f"storm: {len(sent)} commands on {size.keys} keys in {took_s:.0f} s (seed {seed}), {dict(deeds)}, "
        f"takeovers {fleet.taken('died')} of the dead and {fleet.taken('silent')} of the silent, {len(fleet.lost())} tenures fenced: "
        f"{dict(ends)}, each once and in order"
    )


class Nemesis:
    """About once a second something happens to a worker; at the end all of them run."""

    def __init__(self, fleet: Fleet, dice: random.Random) -> None:
        self.fleet, self.dice = fleet, dice
        self._wake_at: dict[int, float] = {}

    async def rage(self, goes_on: Callable[[], bool]) -> None:
        began_s = time.monotonic()
        deeds = [self._kill, self._stop]
        while goes_on():
            assert time.monotonic() - began_s < ENDS_WITHIN_S, "the clients wait for ever"
            next_s = time.monotonic() + DEED_EVERY_S * self.dice.uniform(0.5, 1.5)
            while time.monotonic() < next_s and goes_on():
                self._wake(time.monotonic())
                await asyncio.sleep(0.05)
            # each kind once at first, then by chance
            deed = deeds.pop() if deeds else self.dice.choice([self._kill, self._kill, self._stop, self._stop, self._term])
            awake = [m for m in self.fleet.running if not m.stopped]
            if awake and goes_on():
                deed(self.dice.choice(awake))
            while len(self.fleet.running) < WORKERS:
                self.fleet.start()
        self._wake(float("inf"))

    def _kill(self, member: Member) -> None:
        self.fleet.kill(member)

    def _term(self, member: Member) -> None:
        self.fleet.term(member)

    def _stop(self, member: Member) -> None:
        self.fleet.stop(member)
        self._wake_at[member.pid] = time.monotonic() + LEASE_MS / 1000 * self.dice.uniform(0.3, 4)

    def _wake(self, now_s: float) -> None:
        for pid, at_s in list(self._wake_at.items()):
            if at_s <= now_s:
                del self._wake_at[pid]
                self.fleet.cont(self.fleet.by_pid(pid))


def _out(folder: Path, number: int) -> Path:
    return folder / f"client-{number}.jsonl"


def _log(folder: Path, number: int) -> Path:
    return folder / f"client-{number}.log"


def _produce(client: Client, folder: Path, number: int, seed: int, size: Size) -> subprocess.Popen[bytes]:
    rate = size.commands / CLIENTS / size.seconds
    words = [client.url, client.namespace, number, seed, size.commands // CLIENTS, size.keys, rate, _out(folder, number)]
    _out(folder, number).touch()
    with _log(folder, number).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.producer", *map(str, words)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log, preexec_fn=end_with_parent(),
        )  # fmt: skip
