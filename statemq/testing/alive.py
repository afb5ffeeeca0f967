"""Checks 15 to 17: nobody is declared dead who lives, no command runs in two processes at once, sleeps end when they are due."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

from statemq.testing.evidence import Effect
from statemq.testing.view import CLOCK_MS, View

SET_S = 10.0
"""So long after a clock was set some may not have noticed it yet."""


def false_death(view: View) -> Iterator[str]:
    """15: an owner was taken for dead only when its process had been killed or told to end."""
    for partition, tenures in view.tenures.items():
        for tenure in tenures:
            former = view.processes.get(tenure.taken_from)
            if tenure.how != "died" or former is None:
                continue
            if not former.ended_s or view.ms(former.ended_s) > tenure.at_ms + CLOCK_MS:
                taken = f"partition {partition}: {tenure.worker} took it from {tenure.taken_from} as from a dead worker"
                yield f"{taken}, whose process {former.pid} lived"


def beside(view: View) -> Iterator[str]:
    """16: steps of one command ran at once in two processes only where the later one had waited for the lease of the former owner."""
    runs: dict[str, list[Effect]] = defaultdict(list)
    for effect in view.effects:
        runs[effect.id].append(effect)
    for id, of_command in runs.items():
        partition = view.partition_of(id)
        if partition is None:
            continue
        for before, after in itertools.combinations(of_command, 2):
            if before.pid == after.pid or after.at_s * 1000 > _until_s(view, before) * 1000 - CLOCK_MS:
                continue
            since_ms, until_ms = view.ms(before.at_s) - CLOCK_MS, view.ms(after.at_s) + CLOCK_MS
            began = [t.how or "free" for t in view.tenures.get(partition, []) if since_ms <= t.at_ms <= until_ms]
            if "silent" not in began:
                how = f"whose partition had been taken as {', '.join(began)}" if began else "though nobody had begun a tenure"
                yield f"{id}: step {before.step} ran in {before.pid} and at the same time {after.step} in {after.pid}, {how}"


def _until_s(view: View, run: Effect) -> float:
    """When the step's body ended: by itself, with its process, or (one that was cancelled) at an unknown moment, then not at all."""
    ended_s = view.ended_s.get((run.id, run.step, run.pid, run.at_s))
    if ended_s is not None:
        return ended_s
    process = view.processes.get(view.worker_of.get(run.pid, ""))
    return process.ended_s if process is not None and process.ended_s else run.at_s


def sleeps(view: View) -> Iterator[str]:
    """17: a transition went on from its sleep when that was over, counted from when it first asked for it by a clock that nobody sets:
    never before, and not long after, unless something was broken then. A server's clock that is set forth ends what it passes."""
    recorded = {row.id for row in view.slept}
    set_s = [(fault.start_s, fault.end_s) for fault in view.faults if fault.clock]
    first: set[str] = set()
    for woke in view.woke:
        asked = view.asked.get(woke.id)
        if asked is None or woke.id not in recorded:
            yield f"{woke.id} woke in {woke.pid} from a sleep that has no record"
            continue
        over_s = asked.at_s + asked.sleep_s
        if any(since_s < woke.at_s and asked.at_s < until_s + SET_S for since_s, until_s in set_s):
            continue
        if woke.at_s < over_s - CLOCK_MS / 1000:
            yield f"{woke.id} woke in {woke.pid} {over_s - woke.at_s:.2f} s before its sleep was over"
        if woke.id not in first and view.demand.sleeps_late_s:
            first.add(woke.id)
            late_s = woke.at_s - max(over_s, _last_healed_s(view, woke.at_s))
            if late_s > view.demand.sleeps_late_s:
                yield f"{woke.id} woke in {woke.pid} {late_s:.1f} s after its sleep was over"


def _last_healed_s(view: View, at_s: float) -> float:
    """When the last thing that was broken before this moment was mended; now, while something is broken."""
    return max((min(at_s, max(f.end_s, f.recovered_s)) for f in view.faults if f.start_s <= at_s), default=0.0)
