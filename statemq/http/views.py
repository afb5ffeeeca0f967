"""The JSON that is answered: records as people read them, times in RFC 3339."""

from __future__ import annotations

from typing import Annotated, Any

import falcon.asgi
import msgspec

from statemq.codec import encode, rfc3339
from statemq.records import CommandStatus, Instance, MachineInfo, Outcome, Queued, Step, StepRetry

Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""``2026-11-24T12:00:00.123Z``."""


class Accepted(msgspec.Struct, frozen=True):
    """A command that was queued."""

    id: str


class CancelView(msgspec.Struct, frozen=True):
    """``cancelled``: it has not run and will not. ``asked``: it has begun and is ended where it stands; its steps are not undone."""

    id: str
    cancel: str


class HealthView(msgspec.Struct, frozen=True):
    status: str


class StepView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A recorded step: it has ended and will not run again."""

    name: str
    result: Any = None
    error: str = ""
    at: Time = ""
    took_ms: int = 0


class StepRetryView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step that has failed and is tried again, next at ``due``."""

    name: str
    tries: int
    error: str = ""
    since: Time = ""
    due: Time = ""


class OutcomeView(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a command ended: completed, rejected, failed or cancelled."""

    outcome: str
    result: Any = None
    reason: str = ""
    code: str = ""
    state: str = ""
    version: int = 0
    attempts: int = 1
    allowed: list[str] = []
    at: Time = ""


class CommandView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command. ``status``: queued, running, waiting, delayed, completed, rejected, failed, cancelled."""

    id: str
    status: str
    machine: str = ""
    key: str = ""
    transition: str = ""
    arguments: Any = None
    attempts: int = 0
    error: str = ""
    """The last attempt's error while it is tried again, or why no worker takes it."""
    due: Time = ""
    """When a waiting or delayed command goes on."""
    paused: str = ""
    """What is paused and keeps it waiting: ``order/o-1``, or the machine ``order``."""
    origin: str = ""
    """The command that failed first, if this is a retry of its dead letter."""
    cancel_asked: bool = False
    steps: list[StepView] = []
    retrying: list[StepRetryView] = []
    """Steps that have failed and are tried again."""
    behind: str = ""
    """Behind what it waits: ``slow, which sleeps until 14 Dec 10:00Z``."""
    outcome: OutcomeView | None = None


class QueuedView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command that has not ended."""

    id: str
    transition: str
    status: str
    due: Time = ""
    error: str = ""
    """Why its last attempt failed, or why no worker takes it, while it runs or waits."""
    retrying: list[StepRetryView] = []
    """Of one that has begun: steps that have failed and are tried again."""


class InstanceView(msgspec.Struct, frozen=True):
    """A committed snapshot of an instance, what is under way on it, and what its state allows (guards are not asked)."""

    machine: str
    key: str
    exists: bool
    """False: no command has changed it yet."""
    state: str
    version: int
    data: Any
    paused: bool
    entered: Time | None
    """Since when it is in its state."""
    updated: Time | None
    allowed: list[str]
    running: CommandView | None
    queue: list[QueuedView]
    """In the order in which they will run; the first of them, cut at a limit."""


class MachineView(msgspec.Struct, frozen=True):
    name: str
    initial: str
    states: list[str]
    transitions: list[str]
    queries: list[str]
    partitions: int
    workers: int
    waiting: int
    failed: int
    paused: bool
    in_state: dict[str, int]


def answer_line(resp: falcon.asgi.Response, body: bytes) -> None:
    """The JSON ends with a newline, so that curl's answers stand on lines of their own."""
    resp.data = body + b"\n"


def answer_json(resp: falcon.asgi.Response, value: Any) -> None:
    answer_line(resp, encode(value))


def time_of(at_ms: int) -> Time:
    """Empty for 0, which stands for never."""
    return rfc3339(at_ms) if at_ms else ""


def step_view(step: Step) -> StepView:
    return StepView(step.name, step.result, step.error, time_of(step.at), step.took_ms)


def step_retry_view(step: StepRetry) -> StepRetryView:
    return StepRetryView(step.name, step.tries, step.error, time_of(step.since), time_of(step.due))


def outcome_view(outcome: Outcome) -> OutcomeView:
    return OutcomeView(
        outcome=outcome.outcome,
        result=outcome.result if outcome.outcome == "completed" else None,
        reason=outcome.reason,
        code=outcome.code,
        state=outcome.state,
        version=outcome.version,
        attempts=outcome.attempts,
        allowed=outcome.allowed,
        at=time_of(outcome.at),
    )


def command_view(status: CommandStatus) -> CommandView:
    return CommandView(
        id=status.id,
        status=status.status,
        machine=status.machine,
        key=status.key,
        transition=status.transition,
        arguments=status.args,
        attempts=status.attempts,
        error=status.error,
        due=time_of(status.due),
        paused=status.paused,
        origin=status.origin,
        cancel_asked=status.cancel_asked,
        steps=[step_view(step) for step in status.steps],
        retrying=[step_retry_view(step) for step in status.retrying],
        behind=status.behind,
        outcome=None if status.outcome is None else outcome_view(status.outcome),
    )


def queued_view(entry: Queued) -> QueuedView:
    retrying = [step_retry_view(step) for step in entry.retrying]
    return QueuedView(entry.id, entry.transition, entry.status, time_of(entry.due), entry.error, retrying)


def instance_view(instance: Instance, allowed: list[str], running: CommandStatus | None, queue: list[Queued]) -> InstanceView:
    return InstanceView(
        machine=instance.machine,
        key=instance.key,
        exists=instance.exists,
        state=instance.state,
        version=instance.version,
        data=instance.data,
        paused=instance.paused,
        entered=time_of(instance.entered) or None,
        updated=time_of(instance.updated) or None,
        allowed=allowed,
        running=None if running is None else command_view(running),
        queue=[queued_view(entry) for entry in queue],
    )


def machine_view(info: MachineInfo) -> MachineView:
    return MachineView(**{name: getattr(info, name) for name in MachineView.__struct_fields__})
