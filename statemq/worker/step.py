"""What a step is, apart from the attempt that runs it: its function's way to run and to end, and its record in the journal."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import msgspec

from statemq.codec import digest, duration_text, encode_sorted
from statemq.declaration.annotations import signature_of
from statemq.errors import Fail
from statemq.retry import Retry
from statemq.worker.fork import OneProcess
from statemq.worker.judge import describe
from statemq.worker.returned import told
from statemq.worker.threads import Place

R = TypeVar("R")


class StepError(msgspec.Struct, frozen=True, omit_defaults=True):
    type: str
    reason: str
    code: str = ""
    """A Fail's own."""


NULL = msgspec.Raw(b"null")


class StepRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A journal field: the result or the last error of a step, a digest of its arguments, when it ended and how long it took (ms)."""

    result: msgspec.Raw = NULL
    error: StepError | None = None
    args: str = ""
    at: int = 0
    took_ms: int = 0
    due: int = 0
    """A sleep's end, by Redis time in ms."""
    n: int = 0
    """Its place among the records of its command, from 1; 0 if a former version wrote it."""
    ended: tuple[str, ...] = ()
    """In a body with branches: the sleeps and time-outs whose end it has heard since the record before."""


encode_record = msgspec.json.Encoder().encode
decode_record = msgspec.json.Decoder(StepRecord).decode


def numbers(journal: dict[str, bytes]) -> Iterator[int]:
    """Of its records; 0 where a former version, or somebody's hand, wrote one."""
    for field, raw in journal.items():
        if not field.startswith("@"):
            try:
                yield decode_record(raw).n
            except msgspec.MsgspecError:
                yield 0


async def in_loop(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        with OneProcess():
            return await fn(*args)
    except TypeError as error:
        _check_call(fn, args, error)
        raise
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise unfit(error) from error


async def in_thread(place: Place, fn: Callable[..., Any], args: tuple[Any, ...], begun: asyncio.Future[None] | None) -> Any:
    """A blocking function has a thread, so that the loop and the other keys go on."""
    result = await place.run(functools.partial(contextvars.copy_context().run, _blocking, fn, args), begun)
    return await in_loop(lambda: result, ()) if inspect.isawaitable(result) else result


def _blocking(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        with OneProcess():
            return fn(*args)
    except TypeError as error:
        _check_call(fn, args, error)
        raise
    except BaseException as error:
        if isinstance(error, RuntimeError) and str(error).startswith(("no running event loop", "There is no current event loop")):
            raise Fail("its function is a plain def, which runs in a thread without an event loop: make it async def") from error
        if isinstance(error, Exception | BaseExceptionGroup) and not isinstance(error, StopIteration):
            raise
        # a future cannot carry these to who waits: they hang it, break its coroutines or end the event loop
        raise unfit(error) from error


def _check_call(fn: Callable[..., Any], args: tuple[Any, ...], error: TypeError) -> None:
    """Raises Fail if the function cannot be called with these arguments, which no further try would change."""
    try:
        takes = signature_of(fn)
    except (TypeError, ValueError):  # a function in C that does not say its arguments
        return
    try:
        takes.bind(*args)
    except TypeError as why:
        raise Fail(
            f"its function cannot be called with the arguments of this step ({why}); give ctx.step what the function takes"
        ) from error


def unfit(error: BaseException) -> RuntimeError:
    """In place of an error that would pass by ``except Exception``; caused by it."""
    instead = RuntimeError(f"the step's function raised {describe(error)}")
    instead.__cause__ = error
    return instead


def last_error(error: Fail) -> StepError:
    return StepError("" if type(error) is Fail else type(error).__name__, error.reason[:2000], "" if error.code == "failed" else error.code)


async def bounded(field: str, work: Coroutine[Any, Any, Any], timeout_ms: int, begun: asyncio.Future[None] | None = None) -> Any:
    """What ``work`` gives within the time, which counts from when ``begun`` is done."""
    task = asyncio.ensure_future(work)
    try:
        if begun is not None:
            await asyncio.wait([task, begun], return_when=asyncio.FIRST_COMPLETED)
        ended, _ = await asyncio.wait([task], timeout=timeout_ms / 1000)
    finally:
        if not task.done():
            task.cancel()
    if not ended:
        raise TimeoutError(f"step {field} did not end within {duration_text(timeout_ms)}")
    if task.cancelled():
        raise RuntimeError(f"step {field} raised CancelledError by itself")
    return task.result()


def args_digest(args: tuple[Any, ...]) -> str:
    """Tells arguments apart; values that are not JSON (clients, files) count by their type only."""
    return digest(msgspec.json.encode([_plain(a) for a in args], order="sorted")) if args else ""


def _plain(value: Any) -> Any:
    try:
        return msgspec.Raw(encode_sorted(value))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return type(value).__qualname__


class Step(msgspec.Struct):
    """One call of ``ctx.step``; ``mark`` tells its arguments apart, as they are when it is awaited."""

    field: str
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    retry: Retry | None
    timeout_ms: int | None
    returns: Any
    """The type of its result: as the caller says, as its function says, or Unknown."""
    is_async: bool
    mark: str = ""
    branch: Any = None
    """What its function draws of uuids and chance is counted here."""


def asked(field: str, fn: Any, args: tuple[Any, ...], retry: Retry | None, timeout_ms: int | None, returns: Any) -> Step:
    """Raises Fail for what can be no step."""
    if not callable(fn):
        if inspect.iscoroutine(fn):
            fn.close()
        raise Fail(f"step {field} was given {type(fn).__name__}, not a function: write ctx.step({field!r}, function, *arguments)")
    if retry is not None and not isinstance(retry, Retry):
        raise Fail(f"step {field} was given {retry!r} as retry, which is no Retry: write retry=Retry(attempts=3)", "usage")
    return Step(field, fn, args, retry, timeout_ms, *told(field, fn, returns))
