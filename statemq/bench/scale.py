"""Masses: what a queued command and an idle instance weigh, and whether many of them slow anything down."""

from __future__ import annotations

import time
from functools import partial
from statistics import mean

from statemq.bench.figures import Figure, drain_rate, middle
from statemq.bench.jobs import Job
from statemq.bench.processes import Process, Talker
from statemq.bench.stage import Stage, middle_rate
from statemq.bench.works import in_turn

SAMPLE_S = 0.02
FEW = 20_000
"""A backlog that lies in the worker's windows nearly at once."""

DRAINS = 3
"""Small ones before the deep one and behind it: it takes a minute, in which the host's speed changes by more than what is looked for."""

TAKEOVERS = 16
"""Deaths are looked for ten times a second, so that single takeovers differ by as much: only their mean says something."""

DRAIN_WITHIN_S = 1800.0
SETTLED_S = 1.0
"""A death is noticed at once only by who has seen the dead one alive (P5); workers look ten times a second."""

MB = 1e6


def scale(stage: Stage, count: int) -> list[Figure]:
    """``count`` commands wait for a worker; it drains them; then as many idle instances are there."""
    client = stage.client()
    few = min(FEW, count)
    small = [small_backlog(stage, client, number, few) for number in range(DRAINS)]
    stage.probe.drop_history("Few")  # what expires meanwhile would be taken off the others' memory
    stage.tell(f"scale: queueing {count:,} commands")
    before = stage.probe.used_memory()
    client.ask(Job(kind="fill", machines=("Pile",), count=count, seconds=DRAIN_WITHIN_S))
    queued = stage.probe.used_memory() - before
    stage.tell(f"scale: draining {count:,} commands")
    worker = stage.worker("Pile")
    rate = drain_rate(drain(stage, worker, "Pile"))
    rss = worker.most_rss() or 0
    stage.end(worker)
    outcomes, outcome_bytes = stage.probe.drop_history("Pile")
    kept = stage.probe.used_memory() - before
    small += [small_backlog(stage, client, number, few) for number in range(DRAINS, 2 * DRAINS)]
    note = f"{count:,} queued"
    figures = [
        Figure(name="memory per queued command", value=queued / count, unit="B", note="50 bytes of arguments"),
        Figure(name="memory per idle instance", value=kept / count, unit="B", note="key of 20, 100 bytes of data, index"),
        Figure(name="memory per outcome", value=outcome_bytes / max(1, outcomes), unit="B", note="for 60 to 120 s"),
        Figure(name="worker RSS with a backlog", value=rss / MB, unit="MB", note=note),
    ]
    rates = [r for r in small if r is not None]
    if rate is not None and rates:
        base = f"{len(rates)} of {few:,}, before and after"
        figures.append(Figure(name="rate, deep backlog", value=rate, unit="/s", base=middle(rates), against=base, note=note))
    figures.append(many_instances(stage, client, count))
    figures.append(takeovers(stage, client, count))
    stage.check("scale", client)
    stage.end(client)
    return figures


def small_backlog(stage: Stage, client: Talker, number: int, count: int) -> float | None:
    """The rate at which a fresh worker drains ``count`` commands, each of a new instance. ``number`` such backlogs were there before."""
    stage.tell(f"scale: small backlog {number + 1} of {2 * DRAINS}")
    client.ask(Job(kind="fill", machines=("Few",), first=number * count, count=count))
    worker = stage.worker("Few")
    rate = drain_rate(drain(stage, worker, "Few"))
    stage.end(worker)
    return rate


def drain(stage: Stage, worker: Process, machine: str) -> list[tuple[float, int]]:
    """Time and commands left, until none is."""
    samples: list[tuple[float, int]] = []

    def look() -> bool:
        if worker.process.poll() is not None:
            raise worker.broken("ended")
        samples.append((time.monotonic(), stage.probe.queued(machine)))
        time.sleep(SAMPLE_S)
        return samples[-1][1] == 0

    stage.until("the backlog to be drained", look, DRAIN_WITHIN_S)
    return samples


def many_instances(stage: Stage, client: Talker, count: int) -> Figure:
    """The same load on 1,000 keys of a machine with ``count`` other instances, and of its twin without them."""
    worker = stage.worker("Pile", "Twin")
    full, empty = in_turn(stage, "scale", [(client, worker, Job(kind="closed", machines=(name,))) for name in ("Pile", "Twin")])
    stage.end(worker)
    note = f"{count:,} instances"
    return Figure(name="rate, many instances", value=middle_rate(full), unit="/s", base=middle_rate(empty), against="empty", note=note)


def takeovers(stage: Stage, client: Talker, count: int) -> Figure:
    """From kill -9 of one of two workers until 64 commands, spread over all partitions, have been answered; the machines in turn."""
    taken_s: dict[str, list[float]] = {"Pile": [], "Twin": []}
    alive = {machine: stage.worker(machine) for machine in taken_s}
    for number in range(TAKEOVERS):
        stage.tell(f"scale: takeover {number + 1} of {TAKEOVERS}")
        for machine, times in taken_s.items():
            second = stage.worker(machine)
            stage.until("two workers to share the partitions", partial(shared, stage, machine))
            time.sleep(SETTLED_S)
            stage.kill(alive[machine])
            killed_s = time.monotonic()
            times.append(client.ask(Job(kind="burst", machines=(machine,), keys=64)).ended_s - killed_s)
            alive[machine] = second
    stage.end(*alive.values())
    full_ms, empty_ms = (mean(times) * 1000 for times in taken_s.values())
    note = f"{count:,} instances, to the last of 64 answers; means of {TAKEOVERS}"
    return Figure(name="takeover, many instances", value=full_ms, unit="ms", base=empty_ms, against="empty", note=note)


def shared(stage: Stage, machine: str) -> bool:
    """Whether two workers hold all partitions, half each."""
    owners = stage.probe.owners(machine)
    return "" not in owners and len(set(owners)) == 2 and abs(2 * owners.count(owners[0]) - len(owners)) <= 1
