"""Checks 7 to 9: the order of a key's commands, real time, and one writer a partition."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

from statemq.testing.evidence import Acquire, Commit, Invoke, Ok
from statemq.testing.view import View

Class = tuple[int, int]


def entry_order(view: View) -> Iterator[str]:
    """7: a key's commands were applied in the order of their entry ids, and those of one client in the order it sent them."""
    for key, rows in view.applied.items():
        for before, after in itertools.pairwise(rows):
            if _entry(after.entry) <= _entry(before.entry):
                yield f"{key}: {after.id} (entry {after.entry}) was applied behind {before.id} (entry {before.entry})"
        latest: dict[str, Invoke] = {}
        for row in rows:
            command = view.commands.get(row.id)
            if command is None or not command.first.in_line:
                continue
            sent, last = command.first, latest.get(command.first.client)
            if last is not None and sent.op < last.op:
                yield f"{key}: {sent.client}'s command {sent.op} was applied behind its command {last.op}"
            latest[sent.client] = sent


def _entry(text: str) -> tuple[int, int]:
    ms, _, n = text.partition("-")
    return int(ms), int(n or 0)


def real_time(view: View) -> Iterator[str]:
    """8: each key's operations fit into one order that real time allows.

    Versions give that order up to reads of one version: the write that made v has class (v, 0), a read that saw v has (v, 1). So it
    suffices that no operation that had ended before another began has a higher class (an equal one only between reads): one sweep by time.
    """
    spans: dict[str, list[tuple[float, float, Class, str]]] = defaultdict(list)
    invoked: dict[tuple[str, int], float] = {}
    for id, row in view.row_of.items():
        command = view.commands.get(id)
        if command is not None:
            ended_s = min((ok.at_s for ok in command.oks), default=float("inf"))
            spans[row.key].append((command.invoked_s, ended_s, (row.version, 0), f"the write {id} of version {row.version}"))
            invoked[row.key, row.version] = command.invoked_s
    for op in view.ops:
        if op.begun.kind == "read" and isinstance(op.end, Ok):
            key, version = op.begun.key, op.end.version
            what = f"{op.begun.client}'s read {op.begun.op} of version {version}"
            spans[key].append((op.begun.at_s, op.end.at_s, (version, 1), what))
            if invoked.get((key, version), 0.0) > op.end.at_s:
                yield f"{key}: {what} ended before that version's write was sent"
    for key, of_key in spans.items():
        yield from (f"{key}: {what}" for what in _sweep(of_key))


def _sweep(spans: list[tuple[float, float, Class, str]]) -> Iterator[str]:
    # what begins at the moment at which something else ends is concurrent with it
    moments = [(begun_s, 0, i) for i, (begun_s, *_) in enumerate(spans)] + [(ended_s, 1, i) for i, (_, ended_s, *_) in enumerate(spans)]
    highest, by = (-1, 0), ""
    for _, ends, i in sorted(moments):
        _, _, own, what = spans[i]
        if ends:
            if own > highest:
                highest, by = own, what
        elif own < highest or (own == highest and own[1] == 0):
            yield f"{what} began after {by} had ended"


def one_writer(view: View) -> Iterator[str]:
    """9: in a partition, epochs never fall, a token is one worker's, its commits stand together, and they are its tenure's."""
    for partition, rows in view.audit.items():
        epoch, token, closed = 0, "", set[str]()
        owner: dict[str, str] = {}
        held = ""
        for row in rows:
            if isinstance(row, Acquire):
                held = row.token
            if not isinstance(row, Commit | Acquire):
                continue
            where = f"partition {partition}, row {row.pseq}"
            if owner.setdefault(row.token, row.worker) != row.worker:
                yield f"{where}: {row.worker} wrote under {row.token}, which is {owner[row.token]}'s"
            if row.token != token:
                if row.token in closed:
                    yield f"{where}: {row.token} wrote again after {token} had"
                closed.add(token)
                token = row.token
            number = int(row.token.partition(".")[0] or 0)
            if number < epoch:
                yield f"{where}: epoch {number} follows {epoch}"
            epoch = max(epoch, number)
            if isinstance(row, Commit) and held and row.token != held:
                yield f"{where}: {row.token} committed in the tenure of {held}"
