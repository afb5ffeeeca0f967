"""What one machine's facts mean: its data, its workers, its partitions, and what waits there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from statemq.config import FAILED_CAP, LIMITS, SCHEMA
from statemq.declaration.spec import way_out
from statemq.doctor.finding import Finding, Findings
from statemq.store.health import MachineFacts, PartitionFacts

SHOWN = 5
"""Partitions or keys that a line names; of more it says how many."""


def judge_machine(facts: MachineFacts, long_ms: int) -> list[Finding]:
    """All lines about this machine. ``long_ms``: what has waited or run longer counts as stuck."""
    say = Findings(facts.known.name)
    _data(say, facts)
    _workers(say, facts)
    _leases(say, facts)
    _backlog(say, facts)
    _stuck(say, facts, long_ms)
    _damage(say, facts)
    _streams(say, facts)
    _failed(say, facts)
    _paused(say, facts)
    _states(say, facts)
    unseen = [*facts.unseen, *(name for p in facts.partitions for name in p.unseen)]
    if unseen:
        say.unseen("rights", unseen, "ask as a user with the rights of: statemq acl reader")
    return say.lines


def few(items: Sequence[object]) -> str:
    """The first of them, and how many more there are.

    >>> few([1, 2]), few(range(7))
    ('1, 2', '0, 1, 2, 3, 4 and 2 more')
    """
    shown = ", ".join(str(item) for item in items[:SHOWN])
    return shown if len(items) <= SHOWN else f"{shown} and {len(items) - SHOWN} more"


def _in(parts: Sequence[PartitionFacts]) -> str:
    return f"partition{'s' if len(parts) > 1 else ''} {few([p.number for p in parts])}"


def _data(say: Findings, facts: MachineFacts) -> None:
    config = facts.known.config
    shown = f"schema {config.schema} of {SCHEMA}, {config.partitions} partitions, incarnation {config.incarnation}"
    if facts.unseen:
        return
    wiped = [p for p in facts.partitions if not p.incarnation and not p.unseen and not p.damage]
    foreign = [p for p in facts.partitions if p.incarnation not in ("", config.incarnation)]
    if wiped:
        say.bad("data", f"{_in(wiped)}: wiped", "restore them, or let a worker make them anew: statemq worker TARGET --on-wipe reinit")
    elif foreign:
        say.bad(
            "data", f"{_in(foreign)}: of another incarnation", "restore all from one backup, or: statemq worker TARGET --on-wipe reinit"
        )
    else:
        say.ok("data", shown)


def _workers(say: Findings, facts: MachineFacts) -> None:
    live, waiting = sum(facts.workers.values()), sum(p.waiting for p in facts.partitions)
    if facts.damage or facts.unseen:
        return
    if live:
        say.ok("workers", f"{live} live")
    elif waiting:
        say.bad("workers", f"no worker lives, and {waiting} commands wait", "start one: statemq worker TARGET")
    else:
        say.warn("workers", "no worker lives", "start one: statemq worker TARGET")


def _leases(say: Findings, facts: MachineFacts) -> None:
    live = {id for id, lives in facts.workers.items() if lives}
    overdue = [p for p in facts.partitions if p.owner and p.overdue_ms > 0]
    orphaned = [p for p in facts.partitions if p.owner and p.overdue_ms <= 0 and p.owner not in live]
    free = [p for p in facts.partitions if not p.owner and not p.unseen and not p.damage]
    ours = [p for p in facts.partitions if p.owner and p not in overdue and p not in orphaned]
    if overdue and live:
        longest = max(overdue, key=lambda p: p.overdue_ms)
        say.bad(
            "leases",
            f"{_in(overdue)}: overdue for up to {longest.overdue_ms / 1000:.1f} s; its owner was {longest.owner}, and nobody takes over",
            "look at the workers' logs: they say why",
        )
    elif overdue:
        say.warn(
            "leases",
            f"{_in(overdue)}: left by workers that died ({few(sorted({p.owner for p in overdue}))})",
            "start a worker; it takes over",
        )
    if orphaned:
        say.warn(
            "leases",
            f"{_in(orphaned)}: held by {few(sorted({p.owner for p in orphaned}))}, which does not say that it lives",
            "wait for the lease to end: others take over then; if it is still held, look at that worker's log",
        )
    if free and live:
        say.warn("leases", f"{_in(free)}: nobody's", "look again in some seconds; if it is still so, the workers' logs say why")
    if ours and len(ours) == len(facts.partitions):
        say.ok("leases", f"all {len(ours)} partitions are held by live workers")
    elif not (overdue or orphaned or (free and live)) and free:
        say.ok("leases", "nobody holds a partition")


def _backlog(say: Findings, facts: MachineFacts) -> None:
    if not facts.partitions:
        return
    most = max(facts.partitions, key=lambda p: p.waiting)
    total = sum(p.waiting for p in facts.partitions)
    shown = f"{total} commands have not ended" + (f", {most.waiting} of them in partition {most.number}" if total else "")
    if most.waiting >= LIMITS.backlog:
        say.bad("backlog", f"{shown}, which takes no more", "let it drain: add workers; statemq partitions shows who is busy")
    elif most.waiting >= LIMITS.backlog / 2:
        say.warn("backlog", f"{shown}; it takes {LIMITS.backlog}", "add workers; statemq partitions shows who is busy")
    else:
        say.ok("backlog", shown)


def _stuck(say: Findings, facts: MachineFacts, long_ms: int) -> None:
    name = facts.known.name
    found = False
    slow = [p for p in facts.partitions if p.entry and p.running_ms >= long_ms]
    if slow:
        found, worst = True, max(slow, key=lambda p: p.running_ms)
        say.warn(
            "stuck",
            f"entry {worst.entry} in partition {worst.number} has been in progress for {worst.running_ms / 1000:.1f} s at {worst.worker}"
            + (f"; others in {_in([p for p in slow if p is not worst])}" if len(slow) > 1 else ""),
            f"if that is too long: statemq queue {name} names its command, statemq cancel ends it",
        )
    ready = [p for p in facts.partitions if p.ready_key and p.ready_ms > long_ms and not p.paused]
    if ready:
        found, worst = True, max(ready, key=lambda p: p.ready_ms)
        say.warn(
            "stuck",
            f"key {worst.ready_key} in partition {worst.number} has been ready or busy for {worst.ready_ms / 1000:.1f} s",
            f"statemq queue {name} -- {shlex.quote(worst.ready_key)} shows what waits; more --concurrency or workers run more at once",
        )
    due = [p for p in facts.partitions if p.due_ms > long_ms and not p.paused]
    if due:
        found = True
        say.warn(
            "stuck",
            f"{_in(due)}: a timer has been due for {max(p.due_ms for p in due) / 1000:.1f} s",
            "its partition has no owner that works: look at leases above and at the workers' logs",
        )
    if not found:
        paused = any(p.paused or p.paused_keys for p in facts.partitions)
        say.ok("stuck", f"nothing{' but what is paused' if paused else ''} has waited or run longer than {long_ms / 1000:g} s")


def _damage(say: Findings, facts: MachineFacts) -> None:
    texts = [text for text in (facts.damage, *(p.damage for p in facts.partitions)) if text]
    if texts:
        say.bad(
            "damage",
            "; ".join(texts),
            "RENAME it with redis-cli to a name outside the namespace, or put it right; its partition continues by itself",
        )
    else:
        say.ok("damage", "all shared keys are as they should be")


def _streams(say: Findings, facts: MachineFacts) -> None:
    if used_up := [p for p in facts.partitions if p.used_up]:
        say.bad(
            "streams",
            f"{_in(used_up)}: an entry of the far future has used up the entry ids; new commands are refused",
            f"let its commands end, then: statemq doctor {facts.known.name} --repair",
        )
    else:
        say.ok("streams", "all take new commands")


def _failed(say: Findings, facts: MachineFacts) -> None:
    count, full = sum(p.failed for p in facts.partitions), [p for p in facts.partitions if p.failed >= FAILED_CAP]
    if not count:
        say.ok("failed", "no dead letters")
        return
    lost = f"; {_in(full)} lose the oldest" if full else ""
    say.warn("failed", f"{count} dead letters{lost}", f"statemq failed list {facts.known.name}, then failed retry or discard")


def _states(say: Findings, facts: MachineFacts) -> None:
    known = facts.known
    gone = [state for state in known.all_states if not known.is_declared(state) and any(state in p.undeclared for p in facts.partitions)]
    for state in gone:
        found = [p.undeclared[state] for p in facts.partitions if state in p.undeclared]
        count, keys = sum(number for number, _ in found), sorted(key for _, keys in found for key in keys)[:SHOWN]
        more = f" and {count - len(keys)} more" if count > len(keys) else ""
        are = "instances are" if count > 1 else "instance is"
        say.warn(
            "states",
            f"{count} {are} in {state}, which the class does not declare any more: {', '.join(keys)}{more}",
            f"{way_out(state)}; statemq list {known.name} --state {state} lists them",
        )
    if not gone:
        say.ok("states", "every instance is in a state that the class declares")


def _paused(say: Findings, facts: MachineFacts) -> None:
    name = facts.known.name
    paused, keys = [p for p in facts.partitions if p.paused], [key for p in facts.partitions for key in p.paused_keys]
    if paused:
        say.warn("paused", f"the machine is paused ({len(paused)} of {len(facts.partitions)} partitions)", f"statemq resume {name}")
    if keys:
        say.warn("paused", f"keys with waiting commands are paused: {few(sorted(keys))}", f"statemq resume {name} KEY")
    if not (paused or keys):
        say.ok("paused", "nothing that has commands waiting is paused")
