"""A step's function at work: tried until it gives a result, or its retries are used up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import msgspec

from statemq.errors import Fail, TooLarge, deciding
from statemq.retry import next_ms
from statemq.worker import tell
from statemq.worker.judge import describe, text_of
from statemq.worker.retrying import note
from statemq.worker.returned import encode_result
from statemq.worker.step import NULL, Step, StepError, bounded, in_loop, in_thread, last_error, unfit

if TYPE_CHECKING:
    from statemq.worker.execute import Attempt
    from statemq.worker.threads import Place


async def tried(attempt: Attempt, step: Step) -> tuple[msgspec.Raw, StepError | None]:
    """The step's result, or its last error; without a retry policy an error is the attempt's."""
    tries = 0
    while True:
        tries += 1
        place = None if step.is_async else await attempt.beside(attempt.partition.threads.take(_said(attempt, step)))
        try:
            if not attempt.partition.is_confirmed:  # this process may have stood still while it paused, or waited for a thread
                await attempt.beside(attempt.partition.confirm())
                attempt.check_open()
            return encode_result(step.field, step.returns, await _call(step, place)), None
        except (Exception, BaseExceptionGroup) as raised:
            error, end = raised if isinstance(raised, Exception) else unfit(raised), deciding(raised)
            if isinstance(end, Fail):
                attempt.causes[step.field] = error
                return NULL, last_error(end)
            if step.retry is None or isinstance(end, TooLarge) or attempt.stopped is not None:
                if error is raised:
                    raise
                raise error from raised
            wait_ms = next_ms(step.retry, tries, random.random())  # noqa: S311 - jitter
            if wait_ms is None:
                attempt.causes[step.field] = error
                return NULL, StepError(type(error).__name__, text_of(error)[:2000])
            tell.step_retried(attempt.partition, attempt.command, step.field, tries, describe(error), wait_ms)
            note(attempt, step.field, describe(error), wait_ms)
        finally:
            if place is not None:
                place.give()
        await attempt.waits.pause(step.field, wait_ms)


def _said(attempt: Attempt, step: Step) -> str:
    return f"{attempt.partition.spec.name}/{attempt.command.key} {attempt.command.transition}: {step.field}"


def _call(step: Step, place: Place | None) -> Awaitable[Any]:
    """What the step's function gives; its time-out begins when it does."""
    if place is None:
        work, begun = in_loop(step.fn, step.args), None
    else:
        begun = None if step.timeout_ms is None else asyncio.get_running_loop().create_future()
        work = in_thread(place, step.fn, step.args, begun)
    return work if step.timeout_ms is None else bounded(step.field, work, step.timeout_ms, begun)
