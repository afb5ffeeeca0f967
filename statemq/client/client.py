"""The way in: commands are sent, answers awaited, machines seen and operated, over one Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, TypeVar, overload

import msgspec

from statemq.client.console import NO_ARGUMENTS, Console, MachineRef, checked_id
from statemq.client.handle import Duration, Handle, raise_unless_completed
from statemq.codec import decode, digest, duration_ms
from statemq.command import Command, Question, check_key
from statemq.config import LIMITS
from statemq.declaration.meaning import canonical
from statemq.declaration.operation import explain
from statemq.declaration.state import State
from statemq.errors import Pending, RedisAway, StatemqError, TooLarge, Unknown, UsageError, unicode
from statemq.records import Outcome
from statemq.store.draft import SHARE, Appended, Draft, unsure
from statemq.store.holdup import held_up
from statemq.store.reply import Replies, alone
from statemq.store.wire import swallow

__all__ = ["Client", "Handle"]

R = TypeVar("R")

SUBSCRIBE_WITHIN_S = 1.0
"""How long the first command waits for the reply channel; after it outcomes are asked for instead."""


class Calling:
    """One ``call``: who sent it is woken once, by the outcome, or by the error that kept it from being accepted."""

    __slots__ = ("_replies", "_since", "answer", "draft", "id")

    def __init__(self, draft: Draft, replies: Replies, loop: asyncio.AbstractEventLoop) -> None:
        self.draft, self._replies, self._since = draft, replies, replies.dropped
        self.answer: asyncio.Future[Outcome | None] = loop.create_future()
        self.id = ""
        """Of the accepted command: an earlier one's, where this request repeats it."""

    def done(self) -> bool:
        return self.answer.done()

    def set_result(self, appended: Appended, /) -> None:
        self.id = appended.id
        if appended.outcome is not None:
            self.answer.set_result(appended.outcome)
        else:
            self._replies.join(appended.id, self.answer, heard=not appended.attached, since=self._since)

    def set_exception(self, error: BaseException, /) -> None:
        self.answer.set_exception(error)

    def fields(self) -> dict[str, str]:
        draft = self.draft
        return {"id": self.id or draft.id, "machine": draft.keys.machine, "key": draft.key, "transition": draft.transition}

    def close(self) -> None:
        """Nobody waits any more. What is not sent yet is not sent then."""
        if self.answer.get_loop().is_closed():
            return  # a program that ends without having closed its client
        self.answer.cancel()
        if self.id:
            self._replies.leave(self.id, self.answer)


def _unknown(fields: dict[str, str]) -> Unknown:
    return Unknown(f"nothing is known of command {fields['id']}: never accepted, or ended longer ago than outcomes are kept", **fields)


def _perhaps_queued(drafts: list[Draft], answers: list[asyncio.Future[Appended]]) -> list[str]:
    """The ids of those that are queued, and of those of which it is not known."""
    told: list[str] = []
    for draft, answer in zip(drafts, answers, strict=True):
        if not answer.done() or isinstance(answer.exception(), Pending):
            told.append(draft.id)
        elif answer.exception() is None:
            told.append(answer.result().id)
    return [id for id in told if id]  # what has none was not sent


def _note(error: asyncio.CancelledError, ids: list[str]) -> None:
    """Who gives up is told what may have been queued, also where this becomes the cause of a TimeoutError."""
    if any(ids):
        error.add_note(f"may have been queued: {', '.join(ids)}")


class Client(Console):
    """Sends commands and asks about machines. For one event loop of one process."""

    # -- send ----------------------------------------------------------------------------------------

    @overload
    async def send(
        self,
        command: Command[R],
        /,
        *,
        timeout: Duration | None = None,
        idempotency_key: str | None = None,
        if_state: State | None = None,
        if_version: int | None = None,
        delay: Duration | None = None,
        trace: str | None = None,
    ) -> Handle[R]: ...
    @overload
    async def send(
        self,
        machine: MachineRef,
        key: str,
        transition: str,
        args: Mapping[str, Any] = ...,
        /,
        *,
        timeout: Duration | None = None,
        idempotency_key: str | None = None,
        if_state: State | None = None,
        if_version: int | None = None,
        delay: Duration | None = None,
        trace: str | None = None,
    ) -> Handle[Any]: ...
    async def send(
        self,
        command: Command[Any] | MachineRef,
        key: str | None = None,
        transition: str | None = None,
        args: Mapping[str, Any] = NO_ARGUMENTS,
        /,
        *,
        timeout: Duration | None = None,
        idempotency_key: str | None = None,
        if_state: State | None = None,
        if_version: int | None = None,
        delay: Duration | None = None,
        trace: str | None = None,
    ) -> Handle[Any]:
        """The command is in its instance's queue (or, with ``delay``, will be then).

        ``idempotency_key``: of this instance; the same key again gives the same command, with other arguments
        IdempotencyConflict. ``if_state``, ``if_version``: else it is rejected when its turn comes. ``trace``: W3C traceparent.
        After ``timeout`` (seconds or a timedelta; None: the client's): Pending with its id if it may have been queued, RedisAway if nothing
        was sent.
        Raises UnknownMachine, UnknownTransition, InvalidArguments, InvalidKey, TooLarge, BacklogFull, Refused, NamespaceLost.
        """
        deadline_s = self._by_when(self._within_s if timeout is None else duration_ms(timeout) / 1000)
        draft = await self._by(deadline_s, self._draft(command, key, transition, args, idempotency_key, if_state, if_version, delay, trace))
        draft.share = SHARE.get()
        if not self._replies.opened:
            await self._open_replies(deadline_s)
        since, answer = self._replies.dropped, self._appender.append(draft)
        try:
            appended = await self._confirmed(deadline_s, draft, answer)
        except asyncio.CancelledError as error:
            _note(error, [draft.id])
            raise
        return self._handle(draft, appended, since)

    async def send_many(self, commands: Iterable[Command[R]], *, timeout: Duration | None = None) -> list[Handle[R]]:
        """All of them are queued, in this order for each instance. If one cannot be, its error is raised; the others go on.

        ``timeout`` is for all of them; without it Redis may take the client's for each. Then Pending, whose ``ids`` are queued or may be,
        or RedisAway if nothing was sent. What is not sent then never is. A CancelledError has the ids in a note.
        """
        deadline_s = self._deadline(timeout)
        drafts = [
            await self._by(
                self._by_when(self._within_s) if deadline_s is None else deadline_s,
                self._draft(c, None, None, NO_ARGUMENTS, None, None, None, None, None),
            )
            for c in commands
        ]
        await self._open_replies(deadline_s)
        since, answers = self._replies.dropped, [self._appender.append(draft) for draft in drafts]
        swallow(answers)
        try:
            for answer in answers:
                if not answer.done():
                    within_s = self._within_s if deadline_s is None else deadline_s - self._loop.time()
                    await asyncio.wait([answer], timeout=max(0.0, within_s))
                if not answer.done() or isinstance(answer.exception(), Pending):
                    raise self._many_unconfirmed(drafts, answers)
        except asyncio.CancelledError as error:
            _note(error, _perhaps_queued(drafts, answers))
            raise
        finally:
            for answer in answers:
                answer.cancel()  # no effect on those that have ended
        return [self._handle(draft, answer.result(), since) for draft, answer in zip(drafts, answers, strict=True)]

    @overload
    async def call(
        self,
        command: Command[R],
        /,
        *,
        timeout: Duration | None = None,
        idempotency_key: str | None = None,
        if_state: State | None = None,
        if_version: int | None = None,
        delay: Duration | None = None,
        trace: str | None = None,
    ) -> R: ...
    @overload
    async def call(
        self,
        machine: MachineRef,
        key: str,
        transition: str,
        args: Mapping[str, Any] = ...,
        /,
        *,
        timeout: Duration | None = None,
        idempotency_key: str | None = None,
        if_state: State | None = None,
        if_version: int | None = None,
        delay: Duration | None = None,
        trace: str | None = None,
    ) -> Any: ...
    async def call(
        self,
        command: Command[Any] | MachineRef,
        key: str | None = None,
        transition: str | None = None,
        args: Mapping[str, Any] = NO_ARGUMENTS,
        /,
        *,
        timeout: Duration | None = None,
        idempotency_key: str | None = None,
        if_state: State | None = None,
        if_version: int | None = None,
        delay: Duration | None = None,
        trace: str | None = None,
    ) -> Any:
        """What the transition returned: ``send`` and ``result`` in one. ``timeout`` in seconds or a timedelta, for both.

        Raises what they raise; after ``timeout`` Pending (the command goes on), or RedisAway if nothing was sent.
        """
        deadline_s = self._deadline(timeout)
        drafting = self._draft(command, key, transition, args, idempotency_key, if_state, if_version, delay, trace)
        draft = await (drafting if deadline_s is None else self._by(deadline_s, drafting))
        if not self._replies.opened:
            await self._open_replies(deadline_s)
        calling = Calling(draft, self._replies, self._loop)
        self._appender.send(draft, calling)
        outcome = await self._ended(calling, deadline_s)
        machine = draft.keys.machine
        raise_unless_completed(machine, outcome)
        return self.decode_result(machine, outcome)

    def handle(self, id: str) -> Handle[Any]:
        """A command sent before, by anybody. Nothing is asked yet."""
        return Handle(self, checked_id(id))

    def adopt(self, handle: Handle[R]) -> Handle[R]:
        """The handle as this client's own; another client's (of the parent process, say) is asked after by its id."""
        return handle if handle._client is self else Handle(self, handle.id)

    # -- what a handle asks ------------------------------------------------------------------------

    async def outcome_of(self, handle: Handle[Any], timeout: Duration | None) -> Outcome:
        """Waits for the command's outcome. Raises Pending after ``timeout``, Unknown."""
        self._check()
        timeout_s = None if timeout is None else duration_ms(timeout) / 1000
        outcome = await self._replies.wait(handle.id, timeout_s, heard=handle.sent_here, since=handle._since)
        if isinstance(outcome, Outcome):
            return alone(outcome)
        fields = {"id": handle.id, "machine": handle.machine, "key": handle.key, "transition": handle.transition}
        if outcome is None:
            raise _unknown(fields)
        raise await self._goes_on(fields, timeout_s)

    def decode_result(self, machine: str, outcome: Outcome) -> Any:
        """The result as the class declares it, if that is known here; else as plain JSON values. Raises StatemqError for one of another
        version of the class."""
        spec = self._catalog.spec(machine)
        operation = spec.transitions.get(outcome.transition) if spec is not None else None
        if operation is None:
            return decode(outcome.result)
        try:
            return operation.decode_result(bytes(outcome.result))
        except msgspec.ValidationError as error:
            what = f"command {outcome.id} has completed, but {outcome.transition} of this version of {machine} returns another type"
            raise StatemqError(f"{what}: {explain(error)}; outcome() has the result as JSON") from None

    # -- within --------------------------------------------------------------------------------------

    async def _draft(
        self,
        command: Command[Any] | MachineRef,
        key: str | None,
        transition: str | None,
        args: Mapping[str, Any],
        idempotency_key: str | None,
        if_state: State | None,
        if_version: int | None,
        delay: Duration | None,
        trace: str | None,
    ) -> Draft:
        """The command as it will be sent; all that can be checked here is."""
        self._check()
        if isinstance(command, Command):
            known = await self._catalog.find(command.machine)
            key, transition, raw = command.key, command.transition, command.args
        else:
            if isinstance(command, Question):
                raise UsageError(command.how())
            if key is None or transition is None:
                raise UsageError("give a command, or machine, key and transition")
            known = await self._catalog.find(command)
            check_key(key)
            raw = await self._catalog.encode_arguments(known, transition, args)
        if len(raw) > LIMITS.arguments:
            raise TooLarge("arguments", len(raw), LIMITS.arguments)
        draft = Draft(known.partition(key), key, transition, raw, [], known.config.partitions)
        if if_state is not None:
            if_state = self._state(known, if_state, known.states)
            draft.extras += ["if_state", if_state]
        if if_version is not None:
            if not isinstance(if_version, int):
                raise UsageError(f"if_version is an instance's version, a whole number, not {if_version!r}")
            draft.extras += ["if_version", str(int(if_version))]
        if trace:
            trace = unicode(trace)
            if (size := len(trace.encode())) > LIMITS.field:
                raise TooLarge("trace", size, LIMITS.field)
            draft.extras += ["trace", trace]
        if delay is not None:
            draft.delay_ms = duration_ms(delay)
            if draft.delay_ms > LIMITS.delay_ms:
                raise TooLarge("delay", draft.delay_ms, LIMITS.delay_ms, "ms")
        if idempotency_key is not None:
            if not isinstance(idempotency_key, str):
                raise UsageError(f"an idempotency key is a text, not {idempotency_key!r}")
            try:
                size = len(idempotency_key.encode())
            except UnicodeEncodeError:
                raise UsageError("an idempotency key must be valid Unicode; this one has a lone surrogate") from None
            if not 0 < size <= LIMITS.idempotency_key:
                raise (
                    TooLarge("idempotency key", size, LIMITS.idempotency_key) if size else UsageError("an idempotency key cannot be empty")
                )
            if idempotency_key.startswith("@"):
                raise UsageError('an idempotency key cannot begin with "@": such keys are kept for statemq itself')
            name = transition.encode()
            draft.idempotency_key, draft.digest = idempotency_key, digest(name, raw)
            draft.meaning = digest(name, canonical(raw, known.schema(transition)))
            when = [] if draft.delay_ms is None else ["delay", str(draft.delay_ms)]
            wants = [f"{name}={value}" for name, value in (("if_state", if_state), ("if_version", if_version)) if value is not None]
            draft.conditions = digest(*map(str.encode, [*wants, *when]))
        return draft

    def _deadline(self, timeout: Duration | None) -> float | None:
        return None if timeout is None else self._by_when(duration_ms(timeout) / 1000)

    def _by_when(self, within_s: float) -> float:
        """By this loop's time."""
        self._check()
        return self._loop.time() + within_s

    async def _by(self, deadline_s: float, drafting: Coroutine[Any, Any, Draft]) -> Draft:
        """The draft. A machine that is not known yet is asked for, or declared, for no longer than the caller waits."""
        try:
            async with asyncio.timeout_at(deadline_s):
                return await drafting
        except TimeoutError:
            raise self._not_sent() from None

    def _not_sent(self) -> RedisAway:
        before = "" if self._durability is None else ", or what was sent before is not yet as safe as durability= asks"
        return RedisAway(f"no Redis answers at {self._router.address}{before}; the command was not sent")

    def _unconfirmed(self, draft: Draft) -> Pending | RedisAway:
        """What a sender is told at the deadline: whether the command was sent decides whether it may be sent anew."""
        if not draft.id:
            return self._not_sent()
        who = "Redis" if self._durability is None else "Redis (or what durability= asks of its disk and replicas)"
        return unsure(draft, f"may have been queued: {who} did not confirm it in time")

    def _many_unconfirmed(self, drafts: list[Draft], answers: list[asyncio.Future[Appended]]) -> Pending | RedisAway:
        """The same of many."""
        ids = _perhaps_queued(drafts, answers)
        if not ids:
            return self._not_sent()
        said = f"{len(ids)} of {len(drafts)} commands are queued or may have been queued, but not all were confirmed: ask by ids"
        return Pending(said, id=ids[0], ids=ids)

    async def _confirmed(self, deadline_s: float, draft: Draft, answer: asyncio.Future[Appended]) -> Appended:
        """What became of the draft. What is not sent at the deadline is not sent then."""
        try:
            async with asyncio.timeout_at(deadline_s):
                return await answer
        except Pending:
            raise
        except TimeoutError:
            raise self._unconfirmed(draft) from None

    async def _open_replies(self, deadline_s: float | None) -> None:
        left_s = SUBSCRIBE_WITHIN_S if deadline_s is None else max(0.0, deadline_s - self._loop.time())
        await self._replies.open(min(SUBSCRIBE_WITHIN_S, left_s))

    async def _ended(self, calling: Calling, deadline_s: float | None) -> Outcome:
        """Waits for the outcome of what was sent. Raises what kept it from being accepted; Pending or RedisAway at the deadline."""
        answer = calling.answer
        try:
            if deadline_s is None:
                outcome = await answer
            else:
                began_s = self._loop.time()
                await asyncio.wait([answer], timeout=max(0.0, deadline_s - began_s))
                if calling.id:
                    await self._replies.last_look(calling.id, answer)
                if not answer.done():
                    if not calling.id:
                        raise self._unconfirmed(calling.draft)
                    raise await self._goes_on(calling.fields(), deadline_s - began_s)
                outcome = answer.result()
        finally:
            calling.close()
        if outcome is None:
            raise _unknown(calling.fields())
        return outcome

    async def _goes_on(self, fields: dict[str, str], waited_s: float | None) -> Pending:
        stands = await held_up(self._router, self.namespace, fields["id"], fields.get("key", ""))
        waited = round(waited_s or 0, 2)  # what is left of a timeout when the command has been made
        return Pending(f"command {fields['id']} had not ended after {waited:g} s; {stands}", **fields)

    def _handle(self, draft: Draft, appended: Appended, since: int) -> Handle[Any]:
        return Handle(
            self,
            appended.id,
            key=draft.key,
            transition=draft.transition,
            sent_here=not appended.attached,
            since=since,
            ended=appended.outcome,
        )
