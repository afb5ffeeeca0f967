"""What people look at and turn: the client's calls that see and operate machines."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import getpass
import os
import socket
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextvars import copy_context
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, overload

from statemq.client.handle import Duration
from statemq.client.session import Session, bounded
from statemq.codec import duration_ms, parse_command_id
from statemq.command import Command, Declared, Question, check_key
from statemq.declaration.operation import InvalidResult
from statemq.declaration.state import State, name_of
from statemq.errors import NamespaceLost, StatemqError, UnknownTransition, UsageError
from statemq.fresh import copies_of
from statemq.records import (
    AuditEntry,
    CommandStatus,
    DeadLetter,
    Emptied,
    HistoryEntry,
    Instance,
    Listed,
    MachineInfo,
    PartitionInfo,
    Queued,
    Verdict,
    WorkerInfo,
)
from statemq.store import audit, inspect, lists, operate, queues
from statemq.store import letters as dead
from statemq.store.catalog import Known
from statemq.store.declare import known_machines
from statemq.store.empty import Emptying

if TYPE_CHECKING:
    from statemq.machine import Machine

Data = TypeVar("Data")
R = TypeVar("R")
T = TypeVar("T")

MachineRef = str | type[Declared]
"""A machine's class or its name."""

NO_ARGUMENTS: Mapping[str, Any] = {}


class Console(Session):
    """``machine`` is a class or a name; all may raise UnknownMachine."""

    # -- see -----------------------------------------------------------------------------------------

    @overload
    async def get(self, machine: type[Machine[Data, Any]], key: str) -> Instance[Data]: ...
    @overload
    async def get(self, machine: MachineRef, key: str) -> Instance[Any]: ...
    async def get(self, machine: MachineRef, key: str) -> Instance[Any]:
        """The instance as last committed; an untouched one: the initial state, version 0, ``exists`` false.

        Given the class, ``data`` is of the class's type; StatemqError if what is stored does not fit it. By name it is decoded JSON.
        """
        return await self._get(machine, key)

    @bounded
    async def _get(self, machine: MachineRef, key: str) -> Instance[Any]:
        known = await self._find(machine)
        if isinstance(machine, str):
            return await inspect.get(self._router, known, check_key(key))
        spec = machine.spec
        try:
            return await inspect.get(self._router, known, check_key(key), lambda raw: spec.read_data(key, raw))
        except ValueError as unfit:
            raise StatemqError(f'{unfit}; client.get("{spec.name}", key) gives it as it is stored') from None

    @bounded
    async def list(
        self, machine: MachineRef, *, state: State | None = None, older: Duration | None = None, limit: int = 100
    ) -> builtins.list[Listed]:
        """Instances, those longest in their state first; ``older``: only those that have been in it so long."""
        known = await self._latest(await self._find(machine))
        in_state = None if state is None else self._state(known, state, known.all_states)
        older_ms = None if older is None else duration_ms(older)
        return await lists.list_instances(self._router, known, in_state, older_ms, _positive(limit))

    @overload
    async def query(self, question: Question[R], /) -> R: ...
    @overload
    async def query(self, machine: MachineRef, key: str, name: str, args: Mapping[str, Any] = ...) -> Any: ...
    async def query(
        self, machine: MachineRef | Question[Any], key: str | None = None, name: str | None = None, args: Mapping[str, Any] = NO_ARGUMENTS
    ) -> Any:
        """What the class's ``@query`` says of the instance as last committed. Needs the class here; raises UsageError without."""
        if isinstance(machine, Command):
            raise UsageError(f"{machine.transition} is a transition, which is sent, not asked: client.call(command)")
        if isinstance(machine, Question):
            return await self._query(machine.machine, machine.key, machine.query, machine.args)
        if key is None or name is None:
            raise UsageError("give a question, such as Order.total(key), or machine, key and the query's name")
        return await self._query(machine, key, name, args)

    @bounded
    async def _query(self, machine: MachineRef, key: str, name: str, args: Mapping[str, Any] | bytes) -> Any:
        known = await self._find(machine)
        if known.spec is None:
            raise UsageError(f"a query runs where the class is: give {known.name}'s class, here or as Client(machines=[...])")
        query = known.spec.query(name)
        arguments = query.decode_arguments(args if isinstance(args, bytes) else query.encode_arguments((), args))
        instance = await self._instance(known, check_key(key))
        result = copies_of(copy_context())().run(query.fn, instance, **arguments)
        try:
            query.encode_result(result)
        except InvalidResult as error:
            raise StatemqError(str(error)) from None
        return result

    @bounded
    async def can(self, machine: MachineRef, key: str, transition: str, args: Mapping[str, Any] = NO_ARGUMENTS) -> Verdict:
        """Whether the transition would be accepted now, and what would be. Guards are asked if the class is known here."""
        known = await self._find(machine)
        if transition not in known.transitions:
            raise UnknownTransition(known.name, transition, known.transitions)
        now = await inspect.get(self._router, known, check_key(key))
        part = known.partition(key)
        paused, behind = await asyncio.gather(inspect.paused_by(self._router, part, key), queues.behind(self._router, part, key))
        allowed = known.allowed(now.state)
        reason = "" if transition in allowed else known.refusal(transition, now.state, key)
        if known.spec is None:
            return Verdict(not reason, reason, now.state, allowed, guards=False, paused=paused, behind=behind)
        spec = known.spec.transition(transition)
        case = spec.case(now.state)
        if case is not None and case.guard is not None:
            arguments = spec.decode_arguments(spec.encode_arguments((), args))
            reason = copies_of(copy_context())().run(case.check_guard, await self._instance(known, key), arguments) or ""
        return Verdict(not reason, reason, now.state, allowed, paused=paused, behind=behind)

    @bounded
    async def machines(self) -> builtins.list[MachineInfo]:
        """All machines of the namespace with their counts, by name."""
        self._check()
        found = [await self._latest(await self._catalog.find(name)) for name in await known_machines(self._router, self.namespace)]
        return builtins.list(await asyncio.gather(*(inspect.machine(self._router, self.namespace, known) for known in found)))

    @bounded
    async def queue(self, machine: MachineRef, key: str | None = None, limit: int = 100) -> builtins.list[Queued]:
        """Commands that have not ended, in order. A bounded look: of a very long stream it sees the beginning."""
        known = await self._find(machine)
        return await queues.queue(self._router, known, _key(key), _positive(limit))

    @bounded
    async def history(self, machine: MachineRef, key: str | None = None, limit: int = 100) -> builtins.list[HistoryEntry]:
        """The last outcomes, oldest first, as far back as history is kept."""
        known = await self._find(machine)
        return await lists.history(self._router, known, _key(key), _positive(limit))

    @bounded
    async def show(self, id: str) -> CommandStatus:
        """Where the command is and what it has done. Raises Unknown."""
        self._check()
        checked = checked_id(id)
        return await self._told(
            checked, lambda: queues.show(self._router, self.namespace, checked), lambda status: status.outcome is not None
        )

    @bounded
    async def partitions(self, machine: MachineRef) -> builtins.list[PartitionInfo]:
        """Owner and queue sizes of each partition."""
        known = await self._find(machine)
        return await inspect.partitions(self._router, known)

    @bounded
    async def workers(self, machine: MachineRef | None = None) -> builtins.list[WorkerInfo]:
        """The machine's workers, or all; live ones first."""
        self._check()
        names = [machine] if machine is not None else await known_machines(self._router, self.namespace)
        return await inspect.workers(self._router, self.namespace, [await self._catalog.find(name) for name in names])

    @bounded
    async def live_workers(self, machine: MachineRef) -> int:
        """How many workers of the machine live; with none, commands wait until one comes."""
        known = await self._find(machine)
        return await inspect.live_workers(self._router, self.namespace, known.name)

    @bounded
    async def graph(self, machine: MachineRef) -> dict[str, Any]:
        """The machine as it was declared last: states, transitions, argument schemas."""
        known = await self._find(machine)
        return (await self._catalog.reread(known.name)).config.graph

    @bounded
    async def audit(self, machine: MachineRef, limit: int = 100) -> builtins.list[AuditEntry]:
        """What operators did to the machine, the latest last, as far back as it is kept."""
        known = await self._find(machine)
        return await audit.entries(self._router, self.namespace, known.name, _positive(limit))

    # -- act: written to the audit first, with ``by`` (None: this process's user and host) -----------

    @bounded
    async def cancel(self, id: str, *, by: str | None = None) -> str:
        """``cancelled``, ``asked`` (it has begun; its owner ends it) or ``ended``. Raises Unknown."""
        self._check()
        checked, who = checked_id(id), by or operator()
        return await self._told(checked, lambda: operate.cancel(self._router, self.namespace, checked, who))

    async def empty(self, machine: MachineRef, key: str, *, by: str | None = None) -> Emptied:
        """All of the instance's commands that were there and had not begun are cancelled, delayed ones too, however many they are; what
        comes meanwhile stays, unless it came soon enough to be found. What has begun goes on."""
        emptying = await self._begin_to_empty(machine, key, by or operator())
        while await self._empty_on(emptying):
            pass
        return Emptied(emptying.cancelled, list(emptying.begun))

    @bounded
    async def _begin_to_empty(self, machine: MachineRef, key: str, by: str) -> Emptying:
        known, checked = await self._find(machine), check_key(key)
        await audit.note(self._router, self.namespace, known.name, "cancel", [f"all that waits of {checked}"], by)
        return Emptying(self._router, known, checked)

    @bounded
    async def _empty_on(self, emptying: Emptying) -> bool:
        return await emptying.go_on()

    @bounded
    async def pause(self, machine: MachineRef, key: str | None = None, *, by: str | None = None) -> None:
        """Nothing new of the instance, or of the whole machine, starts until it is resumed."""
        known = await self._find(machine)
        await operate.pause(self._router, known, _key(key), by or operator())

    @bounded
    async def resume(self, machine: MachineRef, key: str | None = None, *, by: str | None = None) -> None:
        """What waits goes on; a command whose failure paused its instance is tried again."""
        known = await self._find(machine)
        await operate.resume(self._router, known, _key(key), by or operator())

    @bounded
    async def failed(self, machine: MachineRef, limit: int = 100) -> builtins.list[DeadLetter]:
        """Commands that failed for good, oldest first."""
        known = await self._find(machine)
        return await dead.failed(self._router, known, _positive(limit))

    async def failed_retry(self, machine: MachineRef, letters: Iterable[str] | None = None, *, by: str | None = None) -> builtins.list[str]:
        """These dead letters' commands (None: all that can be) are queued again, each once; their new ids.

        Raises UsageError, with the reason, for one that cannot be; it stays.
        """
        known, chosen = await self._reread(machine), None if letters is None else [*letters]
        reply, durability = self._replies.channel, self._durability
        queued = dead.retry(self._router, known, chosen, by or operator(), reply=reply, durability=durability)
        return [id async for id in self._each(queued)]

    async def failed_discard(self, machine: MachineRef, letters: Iterable[str] | None = None, *, by: str | None = None) -> int:
        """These dead letters (None: all) are gone; how many there were."""
        known = await self._reread(machine)
        gone = dead.discard(self._router, known, None if letters is None else [*letters], by or operator())
        return sum([count async for count in self._each(gone)])

    # -- within --------------------------------------------------------------------------------------

    @bounded
    async def _reread(self, machine: MachineRef) -> Known:
        return await self._catalog.reread((await self._find(machine)).name)

    async def _each(self, done: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """What is done to many, a part at a time: the time-out is for each part, however many there are."""
        async with contextlib.aclosing(done):
            while (part := await self._next(done)) is not None:
                yield part

    @bounded
    async def _next(self, done: AsyncGenerator[T, None]) -> T | None:
        return await anext(done, None)

    async def _find(self, machine: MachineRef) -> Known:
        self._check()
        return await self._catalog.find(machine)

    async def _instance(self, known: Known, key: str) -> Any:
        """A machine object as last committed, of its class."""
        assert known.spec is not None
        state, version, data = await inspect.get_raw(self._router, known, key)
        try:
            return known.spec.build(key, state, version, data)
        except ValueError as unreadable:
            raise StatemqError(f"{unreadable}; ask with the class that its workers have") from None

    def _state(self, known: Known, state: State, states: builtins.list[str]) -> str:
        """The name of a state that is one of these."""
        name = name_of(state)
        if name not in states:
            raise UnknownTransition(known.name, name, states, "state")
        return name

    async def _latest(self, known: Known) -> Known:
        """The machine as it is declared now: instances may be in states that are newer, or older, than what was kept of it."""
        try:
            return await self._catalog.reread(known.name)
        except NamespaceLost:
            return known  # a wiped namespace has no instances


@cache
def operator() -> str:
    """Who runs this process, for the audit."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def checked_id(id: str) -> str:
    """The id itself, if it can be one."""
    if not isinstance(id, str):
        raise UsageError(f"a command's id is a text, not {type(id).__name__}; a handle has it as handle.id")
    parse_command_id(id)
    return id


def _key(key: str | None) -> str | None:
    return None if key is None else check_key(key)


def _positive(limit: int) -> int:
    if limit < 1:
        raise UsageError(f"a limit is at least 1, not {limit}")
    return limit
