"""Real worker processes to kill, stop and start, and a record of what was done to whom."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from statemq import Client
from statemq.server.host import end_with_parent
from statemq.testing.evidence import Asked, Ended, Woke
from tests.chaos.ledger import EFFECTS, Effect, Ledger
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
UP_WITHIN_S = 60.0
LOST = re.compile(r"ledger:(\d+) lost")
RUNS = re.compile(r"worker (\S+) runs")
TAKEN = re.compile(r"ledger: (\d+) partitions? acquired from (\S+), which (died|fell silent)")


_decode = msgspec.json.Decoder(Effect | Ended | Asked | Woke).decode


class Deed(msgspec.Struct, frozen=True):
    """What was done to a process: kill, term, stop, cont."""

    pid: int
    what: str
    at_s: float


class Member:
    """A worker process; its log goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log
        self.point = ""
        """Where it shall end (tests/faults/points.py)."""
        self.stopped = False
        self.lost_before: dict[int, int] = {}
        """How often it had said of a partition that it lost it when somebody looked last."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def worker(self) -> str:
        """Its worker id, once it has said it."""
        found = RUNS.search(self.said)
        return found[1] if found else ""


class Fleet:
    """The workers of one namespace. ``close`` leaves no process."""

    def __init__(self, client: Client, folder: Path, *, lease_ms: int = 10_000, url: str = "", program: str = "statemq") -> None:
        """``url``: the workers' way to Redis, if it is not the client's. ``program``: the module that is ``statemq`` to them."""
        self.client, self.folder, self.lease_ms = client, folder, lease_ms
        self.url, self.program = url or client.url, program
        self.members: list[Member] = []
        self.deeds: list[Deed] = []
        self.effects_file = folder / "effects.jsonl"
        self.effects_file.touch()

    @property
    def running(self) -> list[Member]:
        return [m for m in self.members if m.runs]

    def start(self, target: str = "tests.chaos.ledger", **environment: str) -> Member:
        log = self.folder / f"worker-{len(self.members) + 1}.log"
        words = ["worker", target, "--log-transitions", "--redis", self.url, "--namespace", self.client.namespace]
        env = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_") or name.startswith("STATEMQ_TEST_")}
        env |= {"PYTHONPATH": str(ROOT), EFFECTS: str(self.effects_file), **environment}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", self.program, *words, "--lease-ms", str(self.lease_ms)],
                cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=end_with_parent(),
            )  # fmt: skip
        member = Member(process, log)
        member.point = environment.get("STATEMQ_FP", "")
        self.members.append(member)
        return member

    def kill(self, member: Member) -> float:
        """Gone as by ``kill -9``; when (monotonic)."""
        at_s = self._send(member, signal.SIGKILL, "kill")
        member.process.wait()
        return at_s

    def term(self, member: Member) -> float:
        return self._send(member, signal.SIGTERM, "term")

    def stop(self, member: Member) -> float:
        member.stopped = True
        return self._send(member, signal.SIGSTOP, "stop")

    def cont(self, member: Member) -> float:
        member.stopped = False
        return self._send(member, signal.SIGCONT, "cont")

    def _send(self, member: Member, number: signal.Signals, what: str) -> float:
        at_s = time.monotonic()
        self.deeds.append(Deed(member.pid, what, at_s))
        member.process.send_signal(number)
        return at_s

    def close(self) -> None:
        for member in self.members:
            if member.runs:
                member.process.kill()
            member.process.wait()

    def by_pid(self, pid: int) -> Member:
        return next(m for m in self.members if m.pid == pid)

    # -- what can be seen --------------------------------------------------------------------------

    def ended_s(self, member: Member) -> float:
        """When it was killed or told to end; 0 if it never was."""
        return min((deed.at_s for deed in self.deeds if deed.pid == member.pid and deed.what in ("kill", "term")), default=0.0)

    def effects(self) -> list[Effect]:
        whole, _, _ = self.effects_file.read_bytes().rpartition(b"\n")
        return [found for line in whole.splitlines() if isinstance(found := _decode(line), Effect)]

    async def effect(self, command_id: str, step: str, unlike: Callable[[Effect], bool] = lambda e: False) -> Effect:
        """The first line of this step that is not ``unlike``, once it is there."""

        def look() -> Effect | None:
            return next((e for e in self.effects() if (e.id, e.step) == (command_id, step) and not unlike(e)), None)

        found: Any = await self.until(look)
        return found  # type: ignore[no-any-return]

    async def owners(self) -> dict[int, int]:
        """Partition → process that holds it; partitions without a living owner are left out."""
        pids = {w.id: w.pid for w in await self.client.workers(Ledger)}
        return {p.number: pids[p.owner] for p in await self.client.partitions(Ledger) if p.owner in pids}

    async def settled(self) -> dict[int, int]:
        """Every running process holds its fair share, and each has looked at the others since (P5: who was never seen alive is
        not missed before its lease ends). Who holds what."""
        pids = {m.pid for m in self.running}
        partitions = Ledger.spec.partitions

        async def fair() -> dict[int, int]:
            owners = await self.owners()
            counts = [sum(owner == pid for owner in owners.values()) for pid in pids]
            return owners if sum(counts) == partitions and max(counts) - min(counts) < 2 else {}

        await self.until(fair)
        seen = {w.id: w.seen for w in await self.client.workers(Ledger)}

        async def looked() -> bool:
            workers = await self.client.workers(Ledger)
            return all(w.seen > seen.get(w.id, 0) for w in workers if w.pid in pids)

        await self.until(looked)
        return await self.until(fair)

    async def until(self, condition: Callable[[], Any], timeout_s: float = UP_WITHIN_S) -> Any:
        """``wait_until``, and on failure what the workers said last."""
        try:
            return await wait_until(condition, timeout_s)
        except AssertionError as error:
            tails = "\n".join(f"--- {m.pid}{'' if m.runs else ' (ended)'}\n{m.said[-1500:]}" for m in self.members[-6:])
            raise AssertionError(f"{error}\n{tails}") from None

    def lost(self) -> list[tuple[int, int]]:
        """(process, partition) for each tenure that was fenced."""
        return [(m.pid, int(p)) for m in self.members for p in LOST.findall(m.said)]

    def taken(self, how: str) -> int:
        """Partitions taken over from owners that were said to have ``died`` or to have fallen ``silent``."""
        return sum(int(found[0]) for m in self.members for found in TAKEN.findall(m.said) if how in found[2])
