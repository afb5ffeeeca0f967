"""Checks 1 to 6: each key's applied commands against what was sent, heard and left. Versions number them, so their order is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from statemq.testing.evidence import Ok
from statemq.testing.view import CLOCK_MS, View


def shape(view: View) -> Iterator[str]:
    """1: a key's versions are 1..N without gaps, in the order of the scripts that made them, and N is the one it ended with."""
    for key in sorted(view.applied.keys() | view.finals.keys()):
        rows = view.applied.get(key, [])
        versions = [row.version for row in rows]
        if versions != list(range(1, len(rows) + 1)):
            at = next(i for i, version in enumerate(versions) if version != i + 1)
            yield f"{key}: version {at + 1} is made by {_whose(versions, at + 1)}, {versions[at]} by {rows[at].id}"
        elif [row.pseq for row in rows] != sorted(row.pseq for row in rows):
            yield f"{key}: a higher version was committed before a lower one"
        final = view.finals.get(key)
        if final is not None and final.version != max(versions, default=0):
            yield f"{key}: ended with version {final.version}; the highest that was committed is {max(versions, default=0)}"


def _whose(versions: list[int], version: int) -> str:
    times = versions.count(version)
    return "nobody" if times == 0 else "one command" if times == 1 else f"{times} commands"


def once(view: View) -> Iterator[str]:
    """2: no command was applied twice."""
    times = Counter(row.id for row in view.commits if row.writes)
    yield from (f"{id} was applied {n} times" for id, n in times.items() if n > 1)


def no_phantom(view: View) -> Iterator[str]:
    """3: what was applied was sent: to this key, and before."""
    nameless = Counter(begun.key for begun in view.nameless)
    for id, row in view.row_of.items():
        command = view.commands.get(id)
        if command is None:
            nameless[row.key] -= 1
            if nameless[row.key] < 0:
                yield f"{row.key}: {id} was applied, and sent by nobody"
        elif command.first.key != row.key:
            yield f"{id} was sent to {command.first.key} and applied to {row.key}"
        elif view.ms(command.invoked_s) > row.at_ms + CLOCK_MS:
            yield f"{row.key}: {id} was applied {view.ms(command.invoked_s) - row.at_ms:.0f} ms before it was sent"


def durable(view: View) -> Iterator[str]:
    """4: a write that was answered stands, at the version that was answered."""
    for id, command in view.commands.items():
        row = view.row_of.get(id)
        for ok in command.oks:
            if row is None:
                yield f"{command.first.key}: {id} was answered version {ok.version} and was never applied"
            elif ok.version != row.version:
                yield f"{command.first.key}: {id} was answered version {ok.version} and made {row.version}"


def definite(view: View) -> Iterator[str]:
    """5: what was answered as rejected, failed or cancelled, and what the machine has to refuse, was not applied."""
    for id, row in view.row_of.items():
        command = view.commands.get(id)
        if command is None:
            continue
        for fail in command.fails[:1]:
            yield f"{row.key}: {id} was answered {fail.why} and was applied as version {row.version}"
        if view.model.apply(view.model.initial, id, command.first.transition, command.first.x) is None:
            yield f"{row.key}: {id} ({command.first.transition}) must be refused and was applied as version {row.version}"


def model(view: View) -> Iterator[str]:
    """6: the model, given each key's commands in order, gives every result that was heard, every value that was read, the last state."""
    reads: dict[str, list[tuple[int, object, str]]] = {}
    for op in view.ops:
        if op.begun.kind == "read" and isinstance(op.end, Ok):
            who = f"{op.begun.client}'s read {op.begun.op}"
            reads.setdefault(op.begun.key, []).append((op.end.version, op.end.value, who))
    for key in sorted(view.applied.keys() | view.finals.keys() | reads.keys()):
        state = view.model.initial
        states = {0: state}
        unknown = False
        for row in view.applied.get(key, []):
            command = view.commands.get(row.id)
            if command is None:
                unknown = True  # what it did cannot be computed; what stands behind it neither
                break
            stepped = view.model.apply(state, row.id, command.first.transition, command.first.x)
            if stepped is None:
                continue
            state, result = stepped
            states[row.version] = state
            for ok in command.oks:
                if ok.value != result:
                    yield f"{key}: {row.id} was answered {ok.value}; the model says {result}"
        for version, value, who in reads.get(key, []):
            if version in states and value != states[version]:
                yield f"{key}: {who} saw {value} at version {version}; the model says {states[version]}"
            elif version not in states and not unknown:
                yield f"{key}: {who} saw version {version}, which nobody made"
        final = view.finals.get(key)
        if final is not None and not unknown and final.value != state:
            yield f"{key}: ended as {final.value}; the model says {state}"
        if final is not None and not unknown:
            made = Counter(view.commands[row.id].first.transition for row in view.applied.get(key, []))
            for transition, n in final.tallies.items():
                if n != made[transition]:
                    yield f"{key}: its data counts {n} of {transition}; {made[transition]} were applied"
