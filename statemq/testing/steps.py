"""Check 11: recorded steps never run again, and a step runs twice only when the tenure in between changed."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator

from statemq.testing.evidence import Effect, Record
from statemq.testing.view import CLOCK_MS, View


def steps(view: View) -> Iterator[str]:
    """11: each recorded step ran; it has one record; it ran again only under another tenure (its owner had died, fallen silent, been set
    back) or beside a process that owned nothing any more and did not know it, and after its record stood only in such a process."""
    recorded: dict[tuple[str, str], Record] = {}
    for rows in view.audit.values():
        found = [row for row in rows if isinstance(row, Record)]
        for (id, step), n in Counter((row.id, row.step) for row in found).items():
            if n > 1:
                yield f"step {step} of {id} has {n} records"
        recorded |= {(row.id, row.step): row for row in found}
    runs: dict[tuple[str, str], list[Effect]] = defaultdict(list)
    for effect in view.effects:
        runs[effect.id, effect.step].append(effect)
    for (id, step), row in recorded.items():
        if not runs[id, step]:
            yield f"step {step} of {id} was recorded under {row.token} and never ran"
    for (id, step), of_step in runs.items():
        if id not in view.commands and id not in view.row_of and not view.nameless:
            yield f"step {step} ran of {id}, which nobody sent"
        partition = view.partition_of(id)
        for before, after in itertools.pairwise(of_step):
            stale = _stale(view, partition, before) or _stale(view, partition, after)
            if not stale and not _changed(view, partition, before, after):
                yield f"step {step} of {id} ran in {before.pid} and again in {after.pid}, within one tenure"
        stands = recorded.get((id, step))
        for run in of_step:
            if stands is not None and view.ms(run.at_s) > stands.at_ms + CLOCK_MS and not _stale(view, partition, run):
                yield f"step {step} of {id} ran in {run.pid} {view.ms(run.at_s) - stands.at_ms:.0f} ms after its record stood"


def _changed(view: View, partition: int | None, before: Effect, after: Effect) -> bool:
    """Whether a tenure began between the two runs."""
    if partition is None:
        return False
    since, until = view.ms(before.at_s) - CLOCK_MS, view.ms(after.at_s) + CLOCK_MS
    return any(since <= tenure.at_ms <= until for tenure in view.tenures.get(partition, []))


def _stale(view: View, partition: int | None, run: Effect) -> bool:
    """Whether the process owned the partition no longer; what it writes is fenced, but it need not know yet."""
    worker = view.worker_of.get(run.pid)
    if worker is None or partition is None:
        return False
    at_ms = view.ms(run.at_s)
    return worker not in (view.owner_at(partition, at_ms - CLOCK_MS), view.owner_at(partition, at_ms + CLOCK_MS))
