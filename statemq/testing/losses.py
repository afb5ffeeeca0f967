"""Losses: where Redis may lose writes (a failover, a torn file), what is missing is an end, not a hole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from statemq.testing.evidence import Commit, Fail, Fault, Ok
from statemq.testing.view import Command, View


def losses(view: View) -> Iterator[str]:
    """Where losses are allowed: the answered writes that are missing were, in their partition, the last ones before a fault that may lose
    writes, and nothing else of them is left (who asked afterwards heard of nothing). Names them to the other checks, which judge the rest.
    """
    if not view.demand.losses:
        return
    breaks = [fault for fault in view.faults if fault.at_ms]
    gone: dict[tuple[int | None, int], list[tuple[Command, Ok]]] = defaultdict(list)
    for id, command in view.commands.items():
        row = view.row_of.get(id)
        for ok in command.oks[:1]:
            again = row is not None and row.at_ms > ok.committed_ms  # sent anew after the loss, and applied then
            if row is not None and not again:
                continue
            at = next((i for i, fault in enumerate(breaks) if ok.committed_ms <= fault.at_ms), None)
            if at is None:
                if row is None:
                    yield f"{command.first.key}: {id} is missing, and no fault came after it that may have lost it"
                continue
            view.lost.add(id)
            gone[view.partition_of(id), at].append((command, ok))
            yield from _remains(view, command, breaks[at])
    for (partition, at), lost in gone.items():
        yield from _holes(view, partition, breaks, at, lost)
    _drop_reads(view, breaks)


def _holes(view: View, partition: int | None, breaks: list[Fault], at: int, lost: list[tuple[Command, Ok]]) -> Iterator[str]:
    """What stands of the time before the fault was committed before all that is missing."""
    since = breaks[at - 1].at_ms if at else 0
    kept = [r for r in view.commits if r.partition == partition and r.writes and since < r.at_ms <= breaks[at].at_ms]
    for command, ok in lost:
        for row in kept:
            same = row.key == command.first.key
            if row.at_ms > ok.committed_ms or (same and row.version >= ok.version):
                yield f"{command.first.key}: {command.id} (version {ok.version}) is missing, though {row.id}, committed after it, is there"
                break


def _remains(view: View, command: Command, fault: Fault) -> Iterator[str]:
    """An outcome that outlived its write would answer a resend with something that never happened."""
    for op in command.ops:
        late = op.begun.at_s > fault.end_s and isinstance(op.end, Ok | Fail)
        if late and command.id not in view.row_of:
            yield f"{command.first.key}: {command.id} is missing, and its outcome was still told after the fault"


def _drop_reads(view: View, breaks: list[Fault]) -> None:
    """Reads that saw what was lost later judge nothing any more."""
    for op in view.ops:
        if op.begun.kind != "read" or not isinstance(op.end, Ok):
            continue
        ended_s, version = op.end.at_s, op.end.version
        fault = next((f for f in breaks if ended_s <= f.end_s), None)
        if fault is None:
            continue
        rows: list[Commit] = view.applied.get(op.begun.key, [])
        if version > max((r.version for r in rows if r.at_ms <= fault.at_ms), default=0):
            view.lost_reads.add((op.begun.client, op.begun.op))
