"""What is measured under load and at rest: each work takes a stage and gives figures."""

from __future__ import annotations

import time

import msgspec

from statemq.bench.figures import Figure, middle
from statemq.bench.http import CONNECTIONS
from statemq.bench.jobs import Job
from statemq.bench.machines import TENS
from statemq.bench.processes import Process, Talker
from statemq.bench.stage import Round, Stage, middle_rate
from statemq.server.host import HOST, free_port

BATCH_PER_SECOND, BATCH_MOST = 20_000, 100_000
DRAIN_WITHIN_S = 300.0

IDLE_S = 20.0
"""CPU time is told in hundredths of a second, so that less would not do."""

MANY_KEYS = Job(kind="closed", keys=1000)

Pair = tuple[Talker, Process, Job]
"""One side of a comparison: who sends, who works, what."""


def many_keys(stage: Stage) -> list[Figure]:
    """With the defaults; beside it, for their price, a worker that logs each transition."""
    told = stage.worker("Told", options=("--log-transitions",))
    ours, raw, logged = against_raw(stage, "many-keys", MANY_KEYS, (told, msgspec.structs.replace(MANY_KEYS, machines=("Told",))))
    stage.end(told)
    server, raw_server = (middle(r.us(r.server_s) for r in rounds) for rounds in (ours, raw))
    worker, raw_worker = (middle(r.us(r.worker_s) for r in rounds) for rounds in (ours, raw))
    client, raw_client = (middle(r.us(r.client_s) for r in rounds) for rounds in (ours, raw))
    total, raw_total = (middle(r.total_us for r in rounds) for rounds in (ours, raw))
    return [
        rate("many keys", ours, raw),
        rate("many keys, each transition logged", logged, raw),
        Figure(name="CPU per command, all", value=total, unit="µs", base=raw_total, against="raw"),
        Figure(name="CPU per command, server", value=server, unit="µs", base=raw_server, against="raw"),
        Figure(name="CPU per command, worker", value=worker, unit="µs", base=raw_worker, against="raw"),
        Figure(name="CPU per command, client", value=client, unit="µs", base=raw_client, against="raw"),
    ]


def hot_key(stage: Stage) -> list[Figure]:
    ours, raw, *_ = against_raw(stage, "hot-key", Job(kind="closed", keys=1))
    return [rate("hot key", ours, raw)]


def steps(stage: Stage) -> list[Figure]:
    ours, raw, *_ = against_raw(stage, "steps", Job(kind="closed", transition="work"))
    return [rate("three recorded steps", ours, raw)]


def idle(stage: Stage) -> list[Figure]:
    """One command at a time; then nothing at all, to see what a worker does when there is nothing to do."""
    figures = []
    for name, transition in (("plain", "flip"), ("3 steps", "work")):
        ours, raw, *_ = against_raw(stage, "idle", Job(kind="closed", transition=transition, inflight=1))
        p50, raw_p50 = (middle(r.done.p50_ms for r in rounds) for rounds in (ours, raw))
        p99, raw_p99 = (middle(r.done.p99_ms for r in rounds) for rounds in (ours, raw))
        figures += [
            Figure(name=f"idle round trip p50, {name}", value=p50, unit="ms", base=raw_p50, against="raw"),
            Figure(name=f"idle round trip p99, {name}", value=p99, unit="ms", base=raw_p99, against="raw"),
        ]
    return figures + idle_worker(stage)


def idle_worker(stage: Stage) -> list[Figure]:
    worker, client = stage.worker("Flip"), stage.client()
    stage.warm_up(client, MANY_KEYS)
    stage.end(client)
    stage.tell("idle: a worker with nothing to do")
    began_s, cpu_s, commands = time.monotonic(), worker.cpu_s() or 0.0, stage.probe.commands_processed()
    time.sleep(max(IDLE_S, stage.seconds))
    commands = stage.probe.commands_processed() - commands - 1  # the question itself
    took_s, cpu_s = time.monotonic() - began_s, (worker.cpu_s() or 0.0) - cpu_s
    stage.end(worker)
    note = "" if stage.server else "all commands of this Redis"
    return [
        Figure(name="idle worker, CPU", value=100 * cpu_s / took_s, unit="%", note="of a core"),
        Figure(name="idle worker, Redis commands", value=commands / took_s, unit="/s", note=note),
    ]


def batch(stage: Stage) -> list[Figure]:
    """Queued by send_many and drained, between rounds of many keys."""
    worker, client = stage.worker("Flip"), stage.client()
    count = int(min(BATCH_MOST, max(1000, BATCH_PER_SECOND * stage.seconds)))
    stage.warm_up(client, MANY_KEYS)
    base: list[Round] = []
    sent, drained, answered = [], [], []
    for number in range(stage.rounds):
        stage.tell(f"batch: round {number + 1} of {stage.rounds}")
        base.append(stage.round(client, worker, MANY_KEYS))
        done = client.ask(Job(kind="send", count=count))
        stage.until("the batch to be drained", lambda: stage.probe.queued("Flip") == 0, DRAIN_WITHIN_S)
        drained.append(count / (time.monotonic() - done.began_s))
        sent.append(count / done.seconds)
        answered.append(count / (client.ask(Job(kind="answers")).ended_s - done.began_s))
    stage.check("batch", client)
    stage.end(client, worker)
    many = middle_rate(base)
    note = f"{count:,} commands"
    return [
        Figure(name="batch drain", value=middle(drained), unit="/s", base=many, against="many keys", note=note),
        Figure(name="batch, sent", value=middle(sent), unit="/s", base=many, against="many keys", note="send_many returned"),
        Figure(name="batch, answered", value=middle(answered), unit="/s", base=many, against="many keys", note="all outcomes heard"),
    ]


def http(stage: Stage) -> list[Figure]:
    """A serving process and 64 keep-alive connections, between rounds of the Python client."""
    port = free_port()
    worker, client, edge = stage.worker("Flip"), stage.client(), stage.http(port, "Flip")
    stage.until("HTTP to answer", lambda: f":{port}" in edge.log.read_text(errors="replace") or edge.process.poll() is not None)
    if edge.process.poll() is not None:
        raise edge.broken("ended")
    callers = stage.client("http", f"{HOST}:{port}")
    calls = Job(kind="closed", inflight=CONNECTIONS)
    base, ours = in_turn(stage, "http", [(client, worker, MANY_KEYS), (callers, edge, calls)])
    p50, p99 = middle(r.done.p50_ms for r in ours), middle(r.done.p99_ms for r in ours)
    edge_us = middle(r.us(r.worker_s) for r in ours)
    stage.end(callers, client, edge, worker)
    note = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    return [
        Figure(name="HTTP, 64 connections", value=middle_rate(ours), unit="/s", base=middle_rate(base), against="many keys", note=note),
        Figure(name="CPU per HTTP call", value=edge_us, unit="µs", note="serving process"),
    ]


def partitions(stage: Stage) -> list[Figure]:
    """More partitions for one worker to read, against the usual 16; all of one process each."""
    usual, wide, tens = stage.worker("Flip"), stage.worker("Wide"), stage.worker(*TENS)
    client = stage.client()
    sides: list[Pair] = [
        (client, usual, MANY_KEYS),
        (client, wide, Job(kind="closed", machines=("Wide",))),
        (client, tens, Job(kind="closed", machines=TENS)),
    ]
    base, of_64, of_ten = in_turn(stage, "partitions", sides)
    stage.end(client, usual, wide, tens)
    return [
        Figure(name="64 partitions", value=middle_rate(of_64), unit="/s", base=middle_rate(base), against="16 partitions"),
        Figure(name="10 machines x 16 partitions", value=middle_rate(of_ten), unit="/s", base=middle_rate(base), against="16 partitions"),
    ]


# -- how ----------------------------------------------------------------------------------------------------


def against_raw(stage: Stage, work: str, job: Job, *more: tuple[Process, Job]) -> list[list[Round]]:
    """Rounds of statemq and of the raw line, each with one worker and one client process; and of ``more`` workers."""
    worker, client, bare, bare_client = stage.worker("Flip"), stage.client(), stage.bare_worker(), stage.client("raw")
    sides: list[Pair] = [(client, worker, job), (bare_client, bare, job), *((client, *other) for other in more)]
    found = in_turn(stage, work, sides)
    stage.end(bare_client, bare, client, worker)
    return found


def in_turn(stage: Stage, work: str, sides: list[Pair]) -> list[list[Round]]:
    """A B A B ...: what disturbs the host disturbs all sides alike. Every client's answers are checked against the data."""
    for client, _, job in sides:
        stage.warm_up(client, job)
    found: list[list[Round]] = [[] for _ in sides]
    for number in range(stage.rounds):
        stage.tell(f"{work}: round {number + 1} of {stage.rounds}")
        for rounds, (client, worker, job) in zip(found, sides, strict=True):
            rounds.append(stage.round(client, worker, job))
    for client in dict.fromkeys(client for client, _, _ in sides):
        stage.check(work, client)
    return found


def rate(name: str, ours: list[Round], raw: list[Round]) -> Figure:
    p50, p99 = middle(r.done.p50_ms for r in ours), middle(r.done.p99_ms for r in ours)
    spent = [(r.total_us, r.us(r.server_s), r.us(r.worker_s), r.us(r.client_s)) for r in ours]
    total, server, worker, client = map(middle, zip(*spent, strict=True))
    cpu = f"{total:.0f} µs CPU a command: server {server:.0f}, worker {worker:.0f}, client {client:.0f}"
    note = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; {cpu}"
    return Figure(name=name, value=middle_rate(ours), unit="/s", base=middle_rate(raw), against="raw", note=note)
