"""Checks 10 and 12 to 14: answers agree, nothing is left over, all goes on after the last fault, and the run was worth judging."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator

from statemq.testing.evidence import Ok
from statemq.testing.view import View

MUST_BE_EMPTY = frozenset({"commands", "accepted", "inbox", "steps", "ready", "timers", "timers:data", "outbox"})
MUST_EXPIRE = frozenset({"outcomes", "once", "touched"})
DOCUMENTED = (
    MUST_BE_EMPTY
    | MUST_EXPIRE
    | {"machines", "config", "workers", "workers:about", "lease", "instance", "in", "history", "failed", "received", "audit"}
)


def replies_agree(view: View) -> Iterator[str]:
    """10: all answers to one command, whoever asked and when, are the same."""
    for id, command in view.commands.items():
        said = {f"version {ok.version} {ok.value}" for ok in command.oks} | {fail.why for fail in command.fails}
        if len(said) > 1:
            yield f"{command.first.key}: {id} was answered in {len(said)} ways: {', '.join(sorted(said))}"


def clean_end(view: View) -> Iterator[str]:
    """12: no work is left, no key has a name that is not documented, what should expire does, kinds of keys keep within their bounds,
    and leases are held by who lives."""
    count, size = Counter[str](), Counter[str]()
    for key in view.keys:
        count[key.kind] += 1
        size[key.kind] += key.bytes
        if key.kind not in DOCUMENTED:
            yield f"{key.name}: no documented name"
        elif key.kind in MUST_BE_EMPTY and (key.length or key.pending):
            yield f"{key.name}: {key.length} entries are left, {key.pending} pending"
        elif key.kind in MUST_EXPIRE and key.ttl_ms < 0:
            yield f"{key.name}: stays for ever"
    for kind, (keys, most) in view.demand.most.items():
        if count[kind] > keys or size[kind] > most:
            yield f"{count[kind]} keys of kind {kind} have {size[kind]} bytes; the bound is {keys} keys and {most} bytes"
    for key in view.keys:
        if (longest := view.demand.longest.get(key.kind)) is not None and key.length > longest:
            yield f"{key.name} has {key.length} entries; the bound is {longest}"
    if view.keys:
        leases = {key.name for key in view.keys if key.kind == "lease"}
        held = [p for worker in view.standing for p in worker.partitions]
        if len(held) != len(set(held)) or len(held) < len(leases):
            yield f"{len(leases)} partitions, and living workers hold {sorted(held)}"


def liveness(view: View) -> Iterator[str]:
    """13: after the last fault each key and each worker had its successes in time, and nobody waits for an answer."""
    since, until = view.demand.healed_s, view.demand.healed_s + view.demand.tail_s
    if not view.demand.tail_s:
        return
    of_key: dict[str, int] = {op.begun.key: 0 for op in view.ops if op.begun.kind == "write"}
    for op in view.ops:
        if op.begun.kind == "write" and op.begun.at_s >= since and isinstance(op.end, Ok) and op.end.at_s <= until:
            of_key[op.begun.key] += 1
    of_worker: dict[str, int] = {worker.worker: 0 for worker in view.standing}
    for row in view.commits:
        if row.worker in of_worker and view.ms(since) <= row.at_ms <= view.ms(until):
            of_worker[row.worker] += 1
    for what, counts in (("key", of_key), ("worker", of_worker)):
        for name, n in counts.items():
            if n < view.demand.successes:
                yield f"{what} {name} had {n} successes within {view.demand.tail_s:g} s of the last fault"
    for op in view.ops:
        if op.end is None:
            yield f"{op.begun.client}'s {op.begun.kind} {op.begun.op} of {op.begun.key} has no end"


def not_vacuous(view: View) -> Iterator[str]:
    """14: in each fault's time something succeeded, and each kind of fault hit something."""
    done = view.succeeded_s
    bit: dict[str, int] = defaultdict(int)
    for fault in view.faults:
        bit[fault.kind] += fault.bit
        until = max(fault.end_s, fault.recovered_s)
        oks = bisect.bisect(done, until) - bisect.bisect_left(done, fault.start_s)
        if oks < view.demand.oks_per_fault:
            yield f"{fault.kind} at {fault.start_s:.1f} s: {oks} commands succeeded until all had recovered"
    for kind in view.demand.bites:
        if not bit[kind]:
            yield f"{kind} hit nothing"
