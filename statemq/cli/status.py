"""A command as people see it: how far it is, its steps, what it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemq.cli.escape import clean, json_text
from statemq.codec import duration_text, short_time, times

if TYPE_CHECKING:
    from statemq.records import CommandStatus, Step

ENDED = frozenset({"completed", "rejected", "failed", "cancelled"})
SLEEP, TIMEOUT = "sleep@", "timeout@"
"""How the journal names sleeps and time-outs; no step can be called so."""


def headline(status: CommandStatus) -> str:
    """``resource/a setUp: completed, 2 attempts``."""
    parts = [status.status]
    if status.outcome and status.outcome.attempts > 1:
        parts.append(f"{status.outcome.attempts} attempts")
    if status.paused:
        parts.append(f"{status.paused} is paused")
    if status.origin:
        parts.append(f"a retry of {status.origin}")
    if status.cancel_asked and status.status not in ENDED:
        parts.append("asked to cancel")
    return clean(f"{status.machine}/{status.key} {status.transition}: {', '.join(parts)}")


def progress(status: CommandStatus, now_ms: int) -> list[str]:
    """The steps that are recorded, the last error, and what is waited for; a line each."""
    steps = [step for step in status.steps if not step.name.startswith(TIMEOUT)]
    wide = max((len(step.name) for step in steps if not step.name.startswith(SLEEP)), default=0)
    lines = [_step(step, wide) for step in steps]
    if status.status in ENDED:
        return lines
    if steps and steps[-1].name.startswith(SLEEP):  # recorded when it begins
        lines[-1] = "… sleep"
    if status.error:
        lines.append(f"↻ attempt {status.attempts} failed: {clean(status.error)}" if status.attempts else f"↻ {clean(status.error)}")
    for step in status.retrying:
        since = f" since {short_time(step.since, now_ms)}" if step.since else ""
        again = f"; again in {duration_text(step.due - now_ms)}" if step.due > now_ms else ""
        lines.append(clean(f"↻ {step.name} has failed {times(step.tries)}{since}: {step.error}{again}"))
    if status.behind:
        lines.append(clean(f"… waits behind {status.behind}"))
    if status.due:
        what = {"delayed": "begins", "queued": "tries again"}.get(status.status, "tries again" if status.error else "continues")
        lines.append(f"… {what} in {duration_text(max(0, status.due - now_ms))}")
    return lines


def _step(step: Step, wide: int) -> str:
    if step.name.startswith(SLEEP):
        return "✓ sleep"
    took = f"  {duration_text(step.took_ms)}" if step.took_ms else ""
    if step.error:
        return clean(f"✗ {step.name:<{wide}}{took}  {step.error}")
    result = "" if step.result is None else f"  {shorten(json_text(step.result))}"
    return clean(f"✓ {step.name:<{wide}}{took}") + result


def shorten(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
