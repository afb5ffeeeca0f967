"""What a command means for an instance: decisions only, no I/O."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec

from statemq.config import LIMITS, is_name
from statemq.declaration.spec import Case, MachineSpec, undeclared
from statemq.errors import FINAL, Fail, InvalidArguments, Reject, TooLarge, deciding, leaves, unicode
from statemq.retry import Retry
from statemq.store import outcome
from statemq.store.commands import Queued, was_checked
from statemq.store.commit import Ended

NAMED = 3
"""As many errors of a group are named in its description."""


class Snapshot(msgspec.Struct):
    """An instance as its next command finds it; ``data`` stays encoded, each attempt decodes its own copy (P12)."""

    state: str
    version: int
    data: bytes
    entered: str
    exists: bool
    own: bool = False
    """``data`` is known to be as this version of the class writes it."""


class Run(msgspec.Struct, frozen=True):
    """Call ``case.fn(instance, …)``."""

    case: Case
    instance: Any
    arguments: dict[str, Any]


class Doomed(msgspec.Struct, frozen=True):
    """It failed for good. ``garbage``: it never could run, whatever the machine's policy."""

    reason: str
    code: str = "failed"
    error: str = ""
    trace: str = ""
    garbage: bool = False


class Unfit(msgspec.Struct, frozen=True):
    """This version of the class does not take the command; another may."""

    doom: Doomed
    """How it ends when none comes."""


class Unreadable(msgspec.Struct, frozen=True):
    """This version of the class cannot read the instance; another wrote it."""

    reason: str


def judge(spec: MachineSpec, snap: Snapshot, c: Queued) -> Run | Ended | Doomed | Unfit | Unreadable:
    """What the command does in this state: runs, is refused, can never run, or is not for this version of the class to judge."""
    transition = spec.transitions.get(c.transition)
    if transition is None:
        reason = f'{spec.name} has no transition "{c.transition}"; it has: {", ".join(spec.transitions)}'
        known = is_name(c.transition)  # else it is none of any version
        return Unfit(Doomed(reason, "unknown_transition")) if known else Doomed(reason, "unknown_transition", garbage=True)
    try:
        arguments = transition.decode_arguments(c.args)
    except InvalidArguments as error:
        if was_checked(c):
            return Unfit(Doomed(str(error), "arguments", type(error).__name__))
        return Doomed(str(error), "arguments", type(error).__name__, garbage=True)
    if snap.state not in spec.members:
        return Unreadable(undeclared(spec, c.key, snap.state))
    if c.if_state and c.if_state != snap.state:
        return refusal(spec, snap, c, f"{spec.name}/{c.key} is {snap.state}, not {c.if_state}", "if_state")
    if c.if_version and c.if_version != str(snap.version):
        return refusal(spec, snap, c, f"{spec.name}/{c.key} is at version {snap.version}, not {c.if_version}", "if_version")
    case = transition.by_state.get(snap.state)
    if case is None:
        return refusal(spec, snap, c, spec.refusal(c.transition, snap.state, c.key), "state")
    try:
        instance = spec.build(c.key, snap.state, snap.version, snap.data)
    except ValueError as error:
        return Unreadable(str(error))
    if case.guard is not None:
        try:
            refused = case.refused(instance, arguments)
        except BaseException as error:  # noqa: BLE001 - a guard is the user's code: whatever it raises fails the command, not the worker
            return Doomed(f"the guard of {c.transition} raised {describe(error)}", "guard", type(error).__name__, trace_of(error))
        if refused is not None:
            return refusal(spec, snap, c, refused.reason, refused.code)
    return Run(case, instance, arguments)


def refusal(spec: MachineSpec, snap: Snapshot, c: Queued, reason: str, code: str) -> Ended:
    """The command is rejected: nothing changes (a rejection creates nothing either)."""
    json = outcome.refused(
        c.id, c.key, c.transition, snap.state, snap.version, reason[:1000], code, spec.allowed(snap.state), c.attempts + 1
    )
    return Ended(
        c, "rejected", json, snap.version, source=snap.state, target=snap.state, data=reason[:200].encode(), attempts=c.attempts + 1
    )


def cancelled(snap: Snapshot, c: Queued) -> Ended:
    json = outcome.cancelled(c.id, c.key, c.transition, snap.state, snap.version, c.attempts + 1)
    return Ended(c, "cancelled", json, snap.version, source=snap.state, target=snap.state, attempts=c.attempts + 1)


def conclude(spec: MachineSpec, snap: Snapshot, c: Queued, run: Run, result: Any) -> tuple[Ended, Snapshot]:
    """The body has returned: what to commit, and the instance after it. Raises Fail (InvalidResult) or TooLarge."""
    case, instance = run.case, run.instance
    state = spec.finish(case, instance)
    known = (snap.exists and snap.data) or spec.new_data() or b""
    data, own = spec.revise(instance, known, snap.own or not snap.exists)
    raw = spec.transitions[c.transition].encode_result(result)
    if len(raw) > LIMITS.result:
        raise TooLarge(f"the result of {c.transition}", len(raw), LIMITS.result)
    if len(data) > LIMITS.data:
        raise TooLarge(f"the data of {spec.name}/{c.key}", len(data), LIMITS.data)
    enters = case.targets is not None and (state != snap.state or state in case.targets)
    if not enters and data == known and state == snap.state:
        # a no-op: completed, nothing changed, nothing created
        snap.own = own
        json = outcome.completed(c.id, c.key, c.transition, snap.state, snap.version, c.attempts + 1, raw)
        return Ended(c, "completed", json, snap.version, source=state, target=state, attempts=c.attempts + 1), snap
    version = snap.version + 1
    enters = enters or not snap.exists
    json = outcome.completed(c.id, c.key, c.transition, state, version, c.attempts + 1, raw)
    ended = Ended(c, "completed", json, snap.version, True, snap.state if snap.exists else "", state, data, enters, c.attempts + 1)
    return ended, Snapshot(state, version, data, str(version) if enters else snap.entered, True, own)


def ends(error: BaseException) -> Doomed | Reject | None:
    """How this exception of a body ends its command; None: the attempt failed, another may follow.

    An error in a group means what it means alone, and what fails the command decides over Reject, that over what is tried again.
    """
    end = deciding(error)
    if isinstance(end, Reject):
        return end
    if not isinstance(end, FINAL):
        return None
    reason = end.reason if isinstance(end, Fail) else str(end)
    return Doomed(reason[:2000], end.code, type(end).__name__, trace_of(error))


def policy(spec: MachineSpec, case: Case) -> Retry:
    return case.retry or spec.retry


def describe(error: BaseException) -> str:
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def text_of(error: BaseException) -> str:
    """What the error says of itself, if it can; a group counts what is in it, so the first are named here."""
    try:
        text = unicode(str(error))
    except Exception:  # noqa: BLE001 - its own __str__ is the user's code as well
        return "it cannot be shown: its __str__ raised"
    if isinstance(error, BaseExceptionGroup):
        named = [describe(one) for one in islice(leaves(error), NAMED + 1)]
        return f"{text}: {'; '.join([*named[:NAMED], '...'] if len(named) > NAMED else named)}"
    return text


def trace_of(error: BaseException) -> str:
    """The traceback's text from the user's first frame on, cut to what a dead letter keeps."""
    lines: Sequence[str] = traceback.format_exception(error)
    return unicode("".join(lines))[-LIMITS.buried_field :]
