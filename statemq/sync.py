"""The blocking client: a thin runner over the async one."""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from statemq import blocking
from statemq.client import client as asynchronous
from statemq.client.console import NO_ARGUMENTS, MachineRef
from statemq.client.handle import Duration, Handle
from statemq.client.session import WITHIN_S
from statemq.codec import duration_ms
from statemq.command import Command, Declared, Question
from statemq.config import DEFAULT_NAMESPACE, DEFAULT_URL, check_namespace
from statemq.declaration.state import State
from statemq.errors import RedisAway, UsageError
from statemq.records import (
    AuditEntry,
    CommandStatus,
    DeadLetter,
    Emptied,
    HistoryEntry,
    Instance,
    Listed,
    MachineInfo,
    Outcome,
    PartitionInfo,
    Queued,
    Verdict,
    WorkerInfo,
)

if TYPE_CHECKING:
    from statemq.machine import Machine

__all__ = ["Client", "SyncHandle"]

Data = TypeVar("Data")
T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


CLOSES_WITHIN_S = 5.0

SOON_S = 1.0
"""Connecting may take so long also where nobody wants to wait for an outcome."""


class Client:
    """As ``statemq.Client``, blocking. May be made at module level and used from many threads, and after a fork.

    It connects at its first call; ``connect()`` does it now. Not for use inside an event loop: there it raises UsageError. Under gevent
    (``monkey.patch_all()`` before all else) a call gives way to the other greenlets.
    ``timeout``, in seconds or a timedelta: how long Redis may take for anything but the wait for an outcome, which has a time-out of
    its own; then RedisAway is raised.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        machines: Iterable[type[Declared]] = (),
        durability: str | None = None,
        timeout: Duration = WITHIN_S,
    ) -> None:
        self._within_s = duration_ms(timeout) / 1000
        classes = tuple(machines)
        self.url, self.namespace = url, check_namespace(namespace)
        self._make: Callable[[], asynchronous.Client] = lambda: asynchronous.Client(
            url, namespace=namespace, machines=classes, durability=durability, timeout=timeout
        )
        self._make()  # what is wrong with the settings is said here
        self._connections: dict[blocking.Process, blocking.Connection] = {}
        self._closed = False

    def connect(self) -> Self:
        """Redis answers. Raises RedisAway within some seconds."""
        self._run(lambda c: _said(c))
        return self

    def close(self) -> None:
        """The connection is closed; commands that were sent go on. Nothing happens if it is closed already."""
        connection = self._connections.pop(blocking.current, None)
        self._closed = True
        if connection is not None and not blocking.current.ends:
            with suppress(TimeoutError):  # nobody waits for this connection any more
                blocking.current.run(connection.close(), CLOSES_WITHIN_S)

    def __enter__(self) -> Self:
        return self.connect()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    if not TYPE_CHECKING:  # a type checker refuses it by itself

        def __aenter__(self):
            raise UsageError("this client blocks: write with, or in an event loop async with statemq.Client(url)")

        def __aexit__(self, *error): ...

    def _run(self, ask: Callable[[asynchronous.Client], Awaitable[T]]) -> T:
        """What Redis answers, within the client's time-out."""
        connection, within_s = self._connection(), self._within_s

        async def answer() -> T:
            limit = asyncio.timeout(within_s)
            try:
                async with limit:
                    return await ask(await connection.client())
            except TimeoutError:
                if not limit.expired():
                    raise
                late = f"Redis did not answer within {within_s:g} s; what it was asked for may have been done all the same"
                raise RedisAway(late) from None

        return blocking.current.run(answer())

    def _wait(
        self, timeout: Duration | None, ask: Callable[[asynchronous.Client, float | None], Awaitable[T]], *, soon_s: float = 0.0
    ) -> T:
        """The end of a wait for an outcome. ``timeout`` is for connecting, too, which gets at least ``soon_s``; ``ask`` is given what is
        left of it."""
        connection = self._connection()
        seconds = None if timeout is None else duration_ms(timeout) / 1000

        async def answer() -> T:
            began_s = time.monotonic()
            client = await connection.within(self._within_s if seconds is None else max(seconds, soon_s), self.url)
            return await ask(client, None if seconds is None else max(0.0, seconds - (time.monotonic() - began_s)))

        return blocking.current.run(answer())

    def _connection(self) -> blocking.Connection:
        if asyncio._get_running_loop() is not None:
            raise UsageError("statemq.sync.Client blocks; inside a running event loop use `async with statemq.Client(url)`")
        if self._closed:
            raise UsageError("this client was closed; make a new one")
        return self._connections.setdefault(blocking.current, blocking.Connection(self._make))

    # -- send ----------------------------------------------------------------------------------------

    @overload
    def send(
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
    ) -> SyncHandle[R]: ...
    @overload
    def send(
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
    ) -> SyncHandle[Any]: ...
    def send(self, *what: Any, timeout: Duration | None = None, **how: Any) -> SyncHandle[Any]:
        """As ``statemq.Client.send``, with the client's ``timeout`` where none is given."""
        within = self._within_s if timeout is None else timeout
        return SyncHandle(self, self._wait(within, lambda c, left: c.send(*what, timeout=left, **how)))

    def send_many(self, commands: Iterable[Command[R]], *, timeout: Duration | None = None) -> list[SyncHandle[R]]:
        """As ``statemq.Client.send_many``."""
        within = self._within_s if timeout is None else timeout
        handles = self._wait(within, lambda c, left: c.send_many(commands, timeout=None if timeout is None else left))
        return [SyncHandle(self, handle) for handle in handles]

    @overload
    def call(
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
    def call(
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
    def call(self, *what: Any, timeout: Duration | None = None, **how: Any) -> Any:
        """As ``statemq.Client.call``."""
        return self._wait(timeout, lambda c, left: c.call(*what, timeout=left, **how))

    def handle(self, id: str) -> SyncHandle[Any]:
        return SyncHandle(self, self._run(lambda c: _said(c.handle(id))))

    # -- see -----------------------------------------------------------------------------------------

    @overload
    def get(self, machine: type[Machine[Data, Any]], key: str) -> Instance[Data]: ...
    @overload
    def get(self, machine: MachineRef, key: str) -> Instance[Any]: ...
    def get(self, machine: MachineRef, key: str) -> Instance[Any]:
        return self._run(lambda c: c.get(machine, key))

    def list(
        self, machine: MachineRef, *, state: State | None = None, older: Duration | None = None, limit: int = 100
    ) -> builtins.list[Listed]:
        return self._run(lambda c: c.list(machine, state=state, older=older, limit=limit))

    @overload
    def query(self, question: Question[R], /) -> R: ...
    @overload
    def query(self, machine: MachineRef, key: str, name: str, args: Mapping[str, Any] = ...) -> Any: ...
    def query(self, *what: Any, **how: Any) -> Any:
        return self._run(lambda c: c.query(*what, **how))

    def can(self, machine: MachineRef, key: str, transition: str, args: Mapping[str, Any] = NO_ARGUMENTS) -> Verdict:
        return self._run(lambda c: c.can(machine, key, transition, args))

    def machines(self) -> builtins.list[MachineInfo]:
        return self._run(lambda c: c.machines())

    def queue(self, machine: MachineRef, key: str | None = None, limit: int = 100) -> builtins.list[Queued]:
        return self._run(lambda c: c.queue(machine, key, limit))

    def history(self, machine: MachineRef, key: str | None = None, limit: int = 100) -> builtins.list[HistoryEntry]:
        return self._run(lambda c: c.history(machine, key, limit))

    def show(self, id: str) -> CommandStatus:
        return self._run(lambda c: c.show(id))

    def partitions(self, machine: MachineRef) -> builtins.list[PartitionInfo]:
        return self._run(lambda c: c.partitions(machine))

    def workers(self, machine: MachineRef | None = None) -> builtins.list[WorkerInfo]:
        return self._run(lambda c: c.workers(machine))

    def live_workers(self, machine: MachineRef) -> int:
        return self._run(lambda c: c.live_workers(machine))

    def graph(self, machine: MachineRef) -> dict[str, Any]:
        return self._run(lambda c: c.graph(machine))

    # -- act -----------------------------------------------------------------------------------------

    def audit(self, machine: MachineRef, limit: int = 100) -> builtins.list[AuditEntry]:
        return self._run(lambda c: c.audit(machine, limit))

    def cancel(self, id: str, *, by: str | None = None) -> str:
        return self._run(lambda c: c.cancel(id, by=by))

    def empty(self, machine: MachineRef, key: str, *, by: str | None = None) -> Emptied:
        return self._run(lambda c: c.empty(machine, key, by=by))

    def pause(self, machine: MachineRef, key: str | None = None, *, by: str | None = None) -> None:
        self._run(lambda c: c.pause(machine, key, by=by))

    def resume(self, machine: MachineRef, key: str | None = None, *, by: str | None = None) -> None:
        self._run(lambda c: c.resume(machine, key, by=by))

    def failed(self, machine: MachineRef, limit: int = 100) -> builtins.list[DeadLetter]:
        return self._run(lambda c: c.failed(machine, limit))

    def failed_retry(self, machine: MachineRef, letters: Iterable[str] | None = None, *, by: str | None = None) -> builtins.list[str]:
        return self._run(lambda c: c.failed_retry(machine, letters, by=by))

    def failed_discard(self, machine: MachineRef, letters: Iterable[str] | None = None, *, by: str | None = None) -> int:
        return self._run(lambda c: c.failed_discard(machine, letters, by=by))


class SyncHandle(Generic[R_co]):
    """As ``statemq.Handle``, blocking."""

    __slots__ = ("_client", "_handle")

    def __init__(self, client: Client, handle: Handle[R_co]) -> None:
        self._client, self._handle = client, handle

    @property
    def id(self) -> str:
        return self._handle.id

    def result(self, timeout: Duration | None = None) -> R_co:
        """What the transition returned. Raises Rejected, Failed, Cancelled; Pending after ``timeout``, Unknown."""
        return self._client._wait(timeout, lambda c, left: c.adopt(self._handle).result(left), soon_s=SOON_S)

    def outcome(self, timeout: Duration | None = None) -> Outcome:
        return self._client._wait(timeout, lambda c, left: c.adopt(self._handle).outcome(left), soon_s=SOON_S)

    def status(self) -> CommandStatus:
        return self._client._run(lambda c: c.show(self.id))

    def cancel(self) -> str:
        return self._client._run(lambda c: c.cancel(self.id))

    def __repr__(self) -> str:
        return f"<SyncHandle {self.id}>"


async def _said(value: T) -> T:
    return value
