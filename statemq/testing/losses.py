"""Losses: where Redis may lose writes (a failover, a torn file), what is missing is an end, not a hole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from statemq.testing.evidence import Fail, Fault, Info, Ok
from statemq.testing.view import Command, Op, View


def losses(view: View) -> Iterator[str]:
    """Where losses are allowed: the answered writes that are missing were, in their partition, the last ones before a fault that may lose
    writes, and nothing else of them is left: who asks afterwards is not told of them. An answer that was lost counts as none to all other
    checks, which judge what survived; so does a read that saw what was lost.
    """
    if not view.demand.losses:
        return
    breaks = [fault for fault in view.faults if fault.at_ms]
    gone: dict[tuple[int | None, int], list[tuple[Command, Ok]]] = defaultdict(list)
    for command in view.commands.values():
        for op, at in _lost_answers(view, command, breaks):
            answer, missing = op.end, command.id not in view.row_of
            if isinstance(answer, Ok):
                view.lost.add(command.id)
                if answer.safe and not breaks[at].torn:
                    yield f"{command.first.key}: {command.id} is missing, though its client had waited until it was safe"
                gone[view.partition_of(command.id), at].append((command, answer))
            if op.begun.at_s > breaks[at].end_s and missing:
                yield f"{command.first.key}: {command.id} is missing, and its outcome was still told after the fault"
            op.end = Info(op.begun.client, op.begun.op, op.end.at_s if op.end else 0.0, command.id, "lost")
    for (partition, at), lost in gone.items():
        yield from _holes(view, partition, breaks, at, lost)
    _drop_reads(view, breaks)


def _lost_answers(view: View, command: Command, breaks: list[Fault]) -> list[tuple[Op, int]]:
    """The answers that a fault undid, and which one: the write is missing, or the command ended once more after it."""
    row = view.row_of.get(command.id)
    ends_ms = [a.committed_ms for a in command.oks] + [a.committed_ms for a in command.fails] + ([row.at_ms] if row is not None else [])
    found = []
    for op in command.ops:
        answer = op.end
        if not isinstance(answer, Ok | Fail):
            continue
        ended_ms = answer.committed_ms
        at = next((i for i, fault in enumerate(breaks) if ended_ms <= fault.at_ms), None)
        if at is not None and ((row is None and isinstance(answer, Ok)) or max(ends_ms) > breaks[at].at_ms):
            found.append((op, at))
    return found


def _holes(view: View, partition: int | None, breaks: list[Fault], at: int, lost: list[tuple[Command, Ok]]) -> Iterator[str]:
    """What stands of the time before the fault was committed before all that is missing."""
    since = breaks[at - 1].at_ms if at else 0
    kept = [r for r in view.commits if r.partition == partition and r.writes and since < r.at_ms <= breaks[at].at_ms]
    for command, ok in lost:
        for row in kept:
            same = row.key == command.first.key
            if (row.at_ms > ok.committed_ms + 1 and not same) or (same and row.version >= ok.version):
                yield f"{command.first.key}: {command.id} (version {ok.version}) is missing, though {row.id}, committed after it, is there"
                break


def _drop_reads(view: View, breaks: list[Fault]) -> None:
    for op in view.ops:
        if op.begun.kind != "read" or not isinstance(op.end, Ok):
            continue
        began_s = op.begun.at_s  # it may have seen what was there before, whenever its client came to write that down
        fault = next((f for f in breaks if began_s <= f.end_s), None)
        if fault is None:
            continue
        kept = [r.version for r in view.applied.get(op.begun.key, []) if r.at_ms <= fault.at_ms]
        if op.end.version > max(kept, default=0):
            op.end = Info(op.begun.client, op.begun.op, op.end.at_s, why="lost")
