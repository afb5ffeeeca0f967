"""A worker without machines, for tests of what talks to one: it holds partitions and ends commands as it is told."""

from __future__ import annotations

from typing import Any

from statemq import keys
from statemq.codec import encode, short_id
from statemq.store import outcome
from statemq.store.commands import Queued, read_entry
from statemq.store.commit import Ended, lay_out, words
from statemq.store.declare import Config, read_config
from statemq.store.effects import Arg
from statemq.store.fence import Fence
from statemq.store.lease import Acquired, acquire
from statemq.store.router import Router
from tests.waiting import wait_until


class FakeWorker:
    def __init__(self, router: Router, namespace: str, machine: str) -> None:
        self.router, self.namespace, self.machine = router, namespace, machine
        self.name = short_id()
        self.config: Config | None = None
        self.fences: dict[int, Fence] = {}
        self.versions: dict[str, int] = {}

    async def part(self, key: str) -> keys.PartitionKeys:
        self.config = self.config or await read_config(self.router, self.namespace, self.machine)
        return keys.PartitionKeys(self.namespace, self.machine, keys.partition_of(key, self.config.partitions))

    async def own(self, key: str) -> tuple[keys.PartitionKeys, Fence]:
        """The key's partition is this worker's."""
        part = await self.part(key)
        if part.number not in self.fences:
            assert self.config is not None
            got = await acquire(
                self.router, part, worker=self.name, n=part.number + 1, believed="", lease_ms=60_000,
                incarnation=self.config.incarnation, silent="", reinit=False,
            )  # fmt: skip
            assert isinstance(got, Acquired), got
            self.fences[part.number] = Fence(self.router, part, got.token, self.name)
        return part, self.fences[part.number]

    async def queued(self, key: str) -> list[Queued]:
        """The key's commands in the stream, in order."""
        part = await self.part(key)
        assert self.config is not None
        rows = await self.router.call(part.lease, "XRANGE", part.commands, "-", "+")
        found = [read_entry(entry, raw, part, self.config.partitions, keys.reply_channel(self.namespace, "")) for entry, raw in rows]
        return [c for c in found if isinstance(c, Queued) and c.key == key]

    async def next(self, key: str) -> Queued:
        """The key's first command, once there is one."""

        found: list[Queued] = []

        async def there() -> bool:
            found[:] = await self.queued(key)
            return bool(found)

        await wait_until(there)
        return found[0]

    async def start(self, key: str) -> Queued:
        """The key's first command is in progress here."""
        command = await self.next(key)
        _, fence = await self.own(key)
        assert await fence.answer(fence.start([command])) == [b"done"]
        return command

    async def complete(self, key: str, result: Any, *, state: str = "", silent: bool = False) -> str:
        """The key's first command has completed; its id. With ``state`` the instance is in it; ``silent``: nobody is told."""
        command = await self.start(key)
        version = self.versions.get(key, 0) + 1 if state else 0
        json = outcome.completed(command.id, key, command.transition, state, version, 1, encode(result))
        return await self._commit(command, "completed", json, state, silent)

    async def reject(self, key: str, reason: str) -> str:
        command = await self.start(key)
        json = outcome.refused(command.id, key, command.transition, "DOWN", 0, reason, "rejected", [], 1)
        return await self._commit(command, "rejected", json, "", False)

    async def _commit(self, command: Queued, word: str, json: bytes, state: str, silent: bool) -> str:
        part, fence = await self.own(command.key)
        before = self.versions.get(command.key, 0)
        if silent:
            command.reply = ""
        ended = Ended(command, word, json, before, writes=bool(state), target=state, data=b"{}", entered=str(before + 1) if state else "")
        if state:
            self.versions[command.key] = before + 1
        states, names, args = lay_out([ended], part)
        reply = await fence.answer(fence.commit(states, names, args, 1))
        assert words(reply, 1) == ["applied"], reply
        return command.id

    async def bury(self, key: str, reason: str) -> str:
        """The key's first command has failed for good and lies among the dead letters."""
        command = await self.start(key)
        _, fence = await self.own(key)
        json = outcome.failed(command.id, key, command.transition, "DOWN", reason, "failed", "ValueError", 3)
        letter: list[Arg] = ["id", command.id, "key", key, "transition", command.transition, "args", command.args, "reason", reason]
        letter += ["error", "ValueError", "traceback", "", "attempts", "3", "source", "DOWN"]
        assert await fence.answer(fence.bury(command, json, 3, command.reply, letter)) == b"buried"
        return command.id
