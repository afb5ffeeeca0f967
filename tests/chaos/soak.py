"""``bin/chaos --minutes N --seed S``: random work and random faults for so long, then every check of ``statemq.testing``.

A server of its own with an append-only file, worker processes, client processes, a proxy on the way of each kind, and a nemesis that deals
the faults of ``tests/chaos/faults.py`` from a shuffled deck, so that each comes round. After each fault all workers, all partitions and all
clients must be at work again, by themselves, within the lease + 2 s (the wire's time-out + 2 s where connections stay open dead).
The seed settles what is done, to whom and for how long; not how it interleaves.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import msgspec
import redis as redis_py

from statemq import Client
from statemq.keys import partition_of
from statemq.server import EmbeddedServer
from statemq.server.host import end_with_parent
from statemq.testing.evidence import Demand, Fault, Invoke, Line, Ok, Process
from statemq.testing.history import Verdict, check, line, read, write
from tests import audit
from tests.chaos import dump
from tests.chaos.clock import ServerClock, can_be_set, steady
from tests.chaos.diary import Diary
from tests.chaos.faults import FAULTS, LOSSES, SEEN_AS, WIRE_TIMEOUT_S, Arena
from tests.chaos.fleet import ROOT, Fleet
from tests.chaos.judge import undrained
from tests.chaos.ledger import MODEL, NEVER_S, Ledger
from tests.faulty import FaultyProxy
from tests.waiting import wait_until

MACHINE, PARTITIONS = Ledger.spec.name, Ledger.spec.partitions
WORKERS, CALLERS, KEYS, RATE = 3, 3, 40, 30.0
LEASE_S = 3.0
SLACK_S = 2.0
"""All goes on within the lease and this, of Redis answering again (Shows 5)."""
ENDS_WITHIN_S = 90.0
TAIL_S = 60.0
"""After the last fault each key and each worker has its successes within this: a machine that others use is slow."""
BETWEEN_S = (0.3, 1.5)

RESENDS = ("seen", "append known", "append ended", "append attached")

BYTES = {"lease": 2_000, "history": 4_000_000, "commands": 50_000, "failed": 8_000_000, "received": 2_000, "in": 20_000}
"""Of a partition, at most."""
LONGEST = {"history": audit.HISTORY_CAP + 300}
"""Entries of a partition's key, at most: the cap, a node of the stream (Redis trims whole ones) and one commit."""
SLEEPS_LATE_S = 10.0
SAFE = "fsync"
"""What the last client waits for before it believes an answer."""


class Done(msgspec.Struct):
    """A fault and what it led to. ``counts``: what the scripts recognised in its time."""

    fault: Fault
    took_s: float
    bound_s: float
    counts: Counter[str]


class Heard:
    """Reads the diaries as they grow: when each client last began a command that was answered."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._at = dict.fromkeys(names, 0)
        self._folder = folder
        self._begun: dict[tuple[str, int], float] = {}
        self.last_s = dict.fromkeys(names, 0.0)
        self.oks = 0
        self._decode = msgspec.json.Decoder(Line).decode

    def look(self) -> None:
        for name, at in self._at.items():
            with (self._folder / f"{name}.jsonl").open("rb") as file:
                file.seek(at)
                whole, end, _ = file.read().rpartition(b"\n")
            self._at[name] = at + len(whole) + len(end)
            for one in map(self._decode, whole.splitlines()):
                if isinstance(one, Invoke) and one.kind == "write":
                    self._begun[one.client, one.op] = one.at_s
                elif (begun_s := self._begun.pop((getattr(one, "client", ""), getattr(one, "op", 0)), None)) and isinstance(one, Ok):
                    self.oks += 1
                    self.last_s[name] = max(self.last_s[name], begun_s)


class Soak:
    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder, self.evidence = args, folder, folder / "evidence"
        self.namespace = f"soak-{uuid.uuid4().hex[:8]}"
        self.dice = random.Random(args.seed)
        self.began_ms = time.time_ns() // 1_000_000
        self.done: list[Done] = []
        self.late: list[str] = []
        self.memory: list[tuple[float, int, int]] = []
        self.clocks: list[Line] = []
        self.began_s = time.monotonic()
        self.names = [f"c{n}" for n in range(CALLERS)]
        self.probes = self._probe_keys()

    def say(self, text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - self.began_s:6.1f} s] {text}\n")

    async def run(self) -> Verdict:
        """The verdict over all that happened; ``late`` has what did not go on in time."""
        self.evidence.mkdir(parents=True)
        words = ["--enable-debug-command", "yes", "--appendfsync", self.args.fsync]
        async with contextlib.AsyncExitStack() as stack:
            server_clock = ServerClock(self.folder / "clock", self.args.server) if can_be_set() else None
            server_bin = server_clock.server_bin if server_clock is not None else self.args.server
            self.server = stack.enter_context(EmbeddedServer(self.folder / "redis", server_bin=server_bin, config=words))
            self.redis = stack.enter_context(redis_py.Redis(port=self.server.port, decode_responses=True, retry=None, socket_timeout=60))
            self.client = await stack.enter_async_context(
                Client(self.server.url, namespace=self.namespace, machines=[Ledger], timeout=NEVER_S)
            )
            workers = await stack.enter_async_context(FaultyProxy(self.server.port))
            callers = await stack.enter_async_context(FaultyProxy(self.server.port))
            self.fleet = Fleet(self.client, self.evidence, lease_ms=int(LEASE_S * 1000), url=workers.url, program="tests.audit")
            stack.callback(self.fleet.close)
            for _ in range(WORKERS):
                self.fleet.start()
            await self.fleet.settled()
            self.arena = Arena(self.dice, self.server, self.redis, self.fleet, workers, callers, LEASE_S, self.namespace, server_clock)
            self.diary = Diary(self.evidence / "probe.jsonl", "probe")
            self.callers = [self._call(name, callers.url) for name in self.names]
            stack.callback(self._end_callers)
            self.heard = Heard(self.evidence, self.names)
            await self._all_called(self.began_s)
            self.say(
                f"seed {self.args.seed}: {WORKERS} workers, {CALLERS} clients, {KEYS} keys, lease {LEASE_S:g} s; evidence in {self.folder}"
            )
            await self._rage()
            if server_clock is not None:
                server_clock.set(0)
            healed_s = time.monotonic()
            await self._tail()
            return await self._judge(healed_s)

    # -- clients and probes --------------------------------------------------------------------------

    def _probe_keys(self) -> list[str]:
        """A key of each partition that nobody else uses."""
        found: dict[int, str] = {}
        n = 0
        while len(found) < PARTITIONS:
            found.setdefault(partition_of(f"p{n}", PARTITIONS), f"p{n}")
            n += 1
        return list(found.values())

    def _call(self, name: str, url: str) -> subprocess.Popen[bytes]:
        out = self.evidence / f"{name}.jsonl"
        out.touch()
        can_wait = bool(self.redis.command_list(pattern="waitaof"))  # it came with 7.2
        durability = SAFE if name == self.names[-1] and can_wait else ""
        words = [url, self.namespace, name, str(self.args.seed), str(KEYS), str(RATE), str(out), durability]
        with (self.evidence / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.caller", *words],
                cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=log, stderr=log,
                preexec_fn=end_with_parent(),
            )  # fmt: skip

    def _end_callers(self) -> None:
        for process in self.callers:
            process.kill()
            process.wait()

    def _tell_callers(self, word: str) -> None:
        for process in self.callers:
            assert process.stdin is not None
            process.stdin.write(f"{word}\n".encode())
            process.stdin.flush()

    async def _all_called(self, since_s: float) -> None:
        """Each client has the answer to a command that it began after ``since_s``."""

        def all_did() -> bool:
            self._alive()
            self.heard.look()
            return min(self.heard.last_s.values()) >= since_s

        await wait_until(all_did, ENDS_WITHIN_S)

    def _alive(self) -> None:
        for name, process in zip(self.names, self.callers, strict=True):
            if process.poll() is not None:
                raise AssertionError(f"client {name} ended: {(self.evidence / f'{name}.log').read_text()[-2000:]}")

    # -- the nemesis ---------------------------------------------------------------------------------

    async def _rage(self) -> None:
        """Faults, one after the other, each until all have recovered from it."""
        until_s = time.monotonic() + self.args.minutes * 60
        deck: list[str] = []
        while time.monotonic() < until_s:
            await asyncio.sleep(self.dice.uniform(*BETWEEN_S))
            if not deck:
                deck = self.args.only or [*FAULTS, *(LOSSES if self.args.losses else [])]
                deck = sorted(set(deck) - ({"server clock"} if self.arena.clock is None else set()))
                self.dice.shuffle(deck)
            await self._fault(deck.pop())
            self._measure()

    async def _fault(self, kind: str) -> None:
        before, oks, start_s = self._counts(), self.heard.oks, time.monotonic()
        did = await (FAULTS | LOSSES)[kind](self.arena)
        answered_s = await asyncio.to_thread(self._redis_answers)
        since_s = did.since_s if did.mend else max(did.since_s, answered_s)
        bound_s = max(LEASE_S, WIRE_TIMEOUT_S if did.silent else 0.0) + SLACK_S
        took_s = await self._recovered(since_s)
        end_s = time.monotonic()
        if did.mend is not None:
            await did.mend()
            end_s = time.monotonic()
            await self._recovered(end_s)
        recovered_s = time.monotonic()
        for _ in range(did.replace):  # as the host of the one that ended would; nothing waited for it
            self.fleet.start()
        if did.replace or did.settle:
            await self.fleet.settled()
        counts = self._counts() - before
        bit = sum(counts[what] for what in SEEN_AS[kind]) if kind in SEEN_AS else did.bit
        fault = Fault(
            kind, start_s, end_s if did.mend else did.since_s, recovered_s, bit,
            did.at_ms if self._lossy else 0, did.note, clock=did.clock, torn=did.torn,
        )  # fmt: skip
        self.done.append(Done(fault, took_s, bound_s, counts))
        with (self.evidence / "nemesis.jsonl").open("ab") as file:
            file.write(line(fault))
        slow = "" if took_s <= bound_s else f", LATER than {bound_s:g} s"
        if slow:
            self.late.append(f"{kind} at {start_s - self.began_s:.1f} s: all were at work after {took_s:.2f} s{slow}")
        self.say(f"{kind} {did.note}: hit {bit}, all at work after {took_s:.2f} s{slow}; {self.heard.oks - oks} commands meanwhile")

    @property
    def _lossy(self) -> bool:
        return self.args.losses or self.args.fsync != "always"

    def _redis_answers(self) -> float:
        while True:
            with contextlib.suppress(redis_py.RedisError):
                self.clocks.append(dump.clock(self.redis))
                return time.monotonic()
            time.sleep(0.01)

    async def _recovered(self, since_s: float) -> float:
        """How long after ``since_s`` each partition had done a command, each client had an answer, each running worker had given a sign."""
        since_ms = self.clocks[-1].at_ms + (since_s - self.clocks[-1].at_s) * 1000  # type: ignore[union-attr]
        pids = {m.pid for m in self.fleet.running if not m.stopped}

        async def all_seen() -> bool:
            seen = {w.pid: w.seen for w in await self.client.workers(Ledger)}
            return all(seen.get(pid, 0) >= since_ms for pid in pids & {m.pid for m in self.fleet.running})

        async def last(work: Any) -> float:
            await work
            return time.monotonic()

        probes = [self.diary.apply(self.client, key) for key in self.probes]
        ends = await asyncio.gather(*map(last, [*probes, self._all_called(since_s), wait_until(all_seen, ENDS_WITHIN_S)]))
        return max(ends) - since_s

    def _counts(self) -> Counter[str]:
        return audit.counts(self.redis, self.namespace, MACHINE, PARTITIONS)

    def _measure(self) -> None:
        with contextlib.suppress(redis_py.RedisError):
            kept = sum(self.redis.memory_usage(f"{self.namespace}:{{{MACHINE}:{p}}}:audit", samples=5) or 0 for p in range(PARTITIONS))
            size = self.redis.dbsize() - 2 * PARTITIONS
            self.memory.append((time.monotonic(), self.redis.info("memory")["used_memory"] - kept, size))

    # -- the end -------------------------------------------------------------------------------------

    async def _tail(self) -> None:
        """Plain commands to every key, by every client; then nothing is left to do."""
        self.say("no more faults: plain commands to every key, then all drains")
        self._tell_callers("last")
        for _ in range(5):
            await asyncio.gather(*(self.diary.apply(self.client, key) for key in self.probes))
        logs = [self.evidence / f"{name}.log" for name in self.names]

        def all_done() -> bool:
            self._alive()
            return all(log.read_text().endswith("done\n") for log in logs)

        await self.fleet.until(all_done, ENDS_WITHIN_S + TAIL_S)
        self.heard.look()
        with contextlib.suppress(AssertionError):  # check 12 names what is left
            await wait_until(lambda: not undrained(self.redis, self.namespace), ENDS_WITHIN_S)

    async def _judge(self, healed_s: float) -> Verdict:
        self.clocks.append(dump.clock(self.redis))
        self._measure()
        last: list[Line] = [*dump.keys(self.redis, self.namespace)]
        last += await dump.finals(self.client, [*self.probes, *(f"k{n}" for n in range(KEYS))])
        last += await dump.standing(self.client, {m.pid for m in self.fleet.running})
        last += [Process(m.pid, m.worker, self.fleet.ended_s(m)) for m in self.fleet.members]
        last.append(self._demand(healed_s))
        write(self.evidence, "dump", [*self.clocks, *last])
        write(self.evidence, "audit", audit.rows(self.redis, self.namespace, MACHINE, PARTITIONS))
        (self.evidence / "counts.json").write_bytes(msgspec.json.encode(self._counts()))
        return check([steady(record, self.began_ms) for record in read(self.evidence)], MODEL)

    def _demand(self, healed_s: float) -> Demand:
        instances = KEYS + PARTITIONS
        twice = 2_000 * int(1 + self.args.minutes)  # idempotency keys are remembered for a day
        most = {kind: (PARTITIONS, PARTITIONS * size) for kind, size in BYTES.items()}
        most |= {"instance": (instances, instances * 1_000), "outcomes": (4 * PARTITIONS, 30_000_000), "once": (twice, twice * 1_000)}
        kinds = sorted({d.fault.kind for d in self.done})
        return Demand(
            losses=self._lossy, healed_s=healed_s, tail_s=TAIL_S, bites=kinds, most=most, longest=LONGEST, sleeps_late_s=SLEEPS_LATE_S
        )

    # -- what is told --------------------------------------------------------------------------------

    def table(self) -> str:
        """What each fault did, and what stayed bounded."""
        rows = [("fault", "times", "hit", "taken over", "fenced", "set back", "resends", "accepted", "worst")]
        by_kind: dict[str, list[Done]] = defaultdict(list)
        for d in self.done:
            by_kind[d.fault.kind].append(d)
        for kind in [kind for kind in FAULTS | LOSSES if kind in by_kind]:
            done = by_kind[kind]
            counts = sum((d.counts for d in done), Counter[str]())
            worst = max(done, key=lambda d: d.took_s / d.bound_s)
            seen = [_sum(counts, *words) for words in (("taken",), ("fenced",), ("rewound",), RESENDS, ("append accepted",))]
            rows.append((kind, *map(str, [len(done), sum(d.fault.bit for d in done), *seen]), f"{worst.took_s:.2f} of {worst.bound_s:g} s"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]) for row in rows]
        whole = msgspec.json.decode((self.evidence / "counts.json").read_bytes(), type=dict[str, int])
        (_, first, keys), (_, last, keys_last) = self.memory[0], self.memory[-1]
        most, keys_most = max(size for _, size, _ in self.memory), max(n for *_, n in self.memory)
        return "\n".join(
            [
                *lines,
                "",
                "recognised by the scripts: " + ", ".join(f"{n} {what}" for what, n in sorted(whole.items())),
                f"memory without the audit: {first / 1e6:.1f} MB at first, {most / 1e6:.1f} at most, {last / 1e6:.1f} at the end; "
                f"keys: {keys} at first, {keys_most} at most, {keys_last} at the end",
            ]
        )


def _sum(counts: Counter[str], *words: str) -> int:
    return sum(n for what, n in counts.items() if what.startswith(words))


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "bin/chaos", description="Random work and faults, then every check. Without --minutes: the chaos tests."
    )
    parser.add_argument("--minutes", type=float, required=True, help="how long there are faults")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="throws the same faults and work again"
    )
    parser.add_argument("--only", action="append", choices=[*FAULTS, *LOSSES], metavar="FAULT", help=", ".join(FAULTS | LOSSES))
    parser.add_argument(
        "--fsync", choices=["always", "everysec", "no"], default="always", help="unless always, the last answers may be lost"
    )
    parser.add_argument("--losses", action="store_true", help="tears the server's file, too: the last answers may be lost, no hole may be")
    parser.add_argument("--server", help="another server binary")
    parser.add_argument("--evidence", type=Path, help="a new folder to keep the evidence in, whatever comes out")
    args = parser.parse_args(words)
    args.losses = args.losses or bool(LOSSES.keys() & set(args.only or []))
    return args


def main(words: list[str]) -> int:
    args = arguments(words)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # the proxies write to connections that they have just cut
    folder = args.evidence or Path(tempfile.mkdtemp(prefix=f"statemq-chaos-{args.seed}-"))
    soak = Soak(args, folder)
    again = f"bin/chaos --minutes {args.minutes:g} --seed {args.seed}"
    try:
        verdict = asyncio.run(soak.run())
    except AssertionError as error:  # something never came: a worker, a client, an answer
        sys.stdout.write(f"{error}\nseed {args.seed}: BROKEN OFF; evidence in {folder}; again: {again}\n")
        return 1
    except BaseException:
        soak.say(f"ended from outside; evidence in {folder}; again: {again}")
        raise
    ok = verdict.ok and not soak.late
    sys.stdout.write(f"{soak.table()}\n\n{verdict.text()}\n")
    sys.stdout.write(
        "\n".join(["not at work in time:", *soak.late]) + "\n"
        if soak.late
        else f"worst recovery {max(d.took_s for d in soak.done):.2f} s\n"
    )
    if ok and args.evidence is None:
        shutil.rmtree(folder)
        sys.stdout.write(f"seed {args.seed}: all promises kept; again: {again}\n")
    else:
        sys.stdout.write(f"seed {args.seed}: {'all promises kept' if ok else 'BROKEN'}; evidence in {folder}; again: {again}\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
