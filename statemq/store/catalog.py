"""The machines a client knows: by their class, or by name from what was declared in the namespace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from statemq.codec import encode_exact
from statemq.command import Declared
from statemq.declaration.operation import UNENCODABLE
from statemq.declaration.schema import validator
from statemq.declaration.spec import MachineSpec, spec_of
from statemq.errors import (
    InvalidArguments,
    NamespaceLost,
    PartitionMismatch,
    UnknownMachine,
    UnknownTransition,
    UnsupportedServer,
)
from statemq.keys import PartitionKeys, partition_of
from statemq.store.declare import Config, declare, read_config
from statemq.store.router import Router


class Known(msgspec.Struct, frozen=True, eq=False):
    """A machine of this namespace; ``spec`` when its class is imported here."""

    name: str
    config: Config
    spec: MachineSpec | None
    partitions: list[PartitionKeys]

    def partition(self, key: str) -> PartitionKeys:
        return self.partitions[partition_of(key, self.config.partitions)]

    @property
    def initial(self) -> str:
        return str(self.config.graph.get("initial", ""))

    @property
    def states(self) -> list[str]:
        return list(self.spec.states) if self.spec is not None else self.config.states

    @property
    def all_states(self) -> list[str]:
        """Those in which instances may be: this class's, those of the version that was declared last, and those of former ones."""
        return list(dict.fromkeys([*self.states, *self.config.states, *self.config.former]))

    def is_declared(self, state: str) -> bool:
        """The version that was declared last has the state."""
        return state in self.config.states

    @property
    def transitions(self) -> list[str]:
        """Names, in the order of the declaration."""
        if self.spec is not None:
            return list(self.spec.transitions)
        return list(dict.fromkeys(t["name"] for t in self.config.graph.get("transitions", ())))

    def allowed(self, state: str) -> list[str]:
        """The transitions that have a case for this state; guards are not asked."""
        if self.spec is not None:
            return self.spec.allowed(state)
        return list(dict.fromkeys(t["name"] for t in self.config.graph.get("transitions", ()) if state in t["source"]))

    def schema(self, transition: str) -> dict[str, Any]:
        """Of the transition's arguments; empty where it is not known."""
        if self.spec is not None:
            return self.spec.transition(transition).schema
        schema = self.config.graph.get("arguments", {}).get(transition)
        return schema if isinstance(schema, dict) else {}

    def refusal(self, transition: str, state: str, key: str) -> str:
        """``resource/a is UP; setUp needs DOWN``."""
        if self.spec is not None:
            return self.spec.refusal(transition, state, key)
        sources = [s for t in self.config.graph.get("transitions", ()) if t["name"] == transition for s in t["source"]]
        *most, last = [s for s in self.config.graph.get("states", ()) if s in sources] or ["another state"]
        return f"{self.name}/{key} is {state}; {transition} needs {', '.join(most) + ' or ' + last if most else last}"


class Catalog:
    """Configs are read once and kept; they are read again when a command does not fit the kept one."""

    def __init__(self, router: Router, namespace: str, specs: Iterable[MachineSpec]) -> None:
        self._router, self.namespace = router, namespace
        self._specs: dict[str, MachineSpec] = {spec.name: spec for spec in specs}
        self._known: dict[str, Known] = {}
        self._finding: dict[tuple[str, MachineSpec | None], asyncio.Task[Known]] = {}
        self._validators: dict[tuple[str, str], tuple[Config, Callable[[bytes], None]]] = {}

    async def declare_all(self) -> None:
        """The namespace knows the machines whose classes were given. Raises PartitionMismatch, SchemaTooNew."""
        for spec in self._specs.values():
            await self._find(spec.name, spec)

    async def find(self, machine: str | type[Declared]) -> Known:
        """The machine, declared if its class is given. Raises UnknownMachine, PartitionMismatch, SchemaTooNew."""
        if isinstance(machine, str):
            return self._known.get(machine) or await self._find(machine, self._specs.get(machine))
        spec = spec_of(machine)
        known = self._known.get(spec.name)
        if known is not None and known.spec is spec:
            return known
        self._specs[spec.name] = spec
        return await self._find(spec.name, spec)

    def spec(self, name: str) -> MachineSpec | None:
        """The machine's declaration, if its class is known here."""
        return self._specs.get(name)

    def kept(self, name: str) -> Known:
        """As it was found last."""
        return self._known[name]

    async def reread(self, name: str) -> Known:
        """As the namespace has it now; nothing is declared, so that a wiped namespace is noticed. Raises NamespaceLost."""
        try:
            config = await read_config(self._router, self.namespace, name)
        except UnknownMachine as error:
            raise NamespaceLost(
                f"namespace {self.namespace} was wiped since this client first saw it: {name} is not declared any more"
            ) from error
        before = self._known.get(name)
        return self._keep(name, config, before.spec if before else self._specs.get(name))

    async def _find(self, name: str, spec: MachineSpec | None) -> Known:
        """Asked once for all who want it now, and to the end though they give up: else callers in a hurry would never come to know it."""
        finding = self._finding.get((name, spec))
        if finding is None:
            finding = self._finding[name, spec] = asyncio.ensure_future(self._ask(name, spec))
            finding.add_done_callback(lambda asked: self._found(name, spec, asked))
        return await asyncio.shield(finding)

    def _found(self, name: str, spec: MachineSpec | None, asked: asyncio.Task[Known]) -> None:
        del self._finding[name, spec]
        if not asked.cancelled():
            asked.exception()  # told to who still waits

    async def _ask(self, name: str, spec: MachineSpec | None) -> Known:
        if spec is None:
            return self._keep(name, await read_config(self._router, self.namespace, name), None)
        try:
            config = await declare(self._router, self.namespace, name, spec.partitions, spec.graph(), update=False)
        except UnsupportedServer as denied:
            # who may only read cannot declare a machine, and need not where somebody has
            with suppress(UnknownMachine):
                config = await read_config(self._router, self.namespace, name)
                if config.partitions != spec.partitions:
                    raise PartitionMismatch(name, spec.partitions, config.partitions) from None
                return self._keep(name, config, spec)
            raise denied
        return self._keep(name, config, spec)

    def _keep(self, name: str, config: Config, spec: MachineSpec | None) -> Known:
        partitions = [PartitionKeys(self.namespace, name, p) for p in range(config.partitions)]
        known = self._known[name] = Known(name, config, spec, partitions)
        return known

    async def encode_arguments(self, known: Known, transition: str, args: Mapping[str, Any]) -> bytes:
        """The arguments as JSON, checked with the class or else the declared schema. Raises UnknownTransition, InvalidArguments."""
        if not isinstance(args, Mapping):
            raise InvalidArguments(
                known.name, transition, f"arguments are names with values, such as {{'n': 1}}, not {type(args).__name__}"
            )
        if known.spec is not None:
            return known.spec.transition(transition).encode_arguments((), args)
        try:
            return self._check(known, transition, args)
        except (UnknownTransition, InvalidArguments):
            # a newer version of the machine may have been deployed since its config was read
            return self._check(await self.reread(known.name), transition, args)

    def _check(self, known: Known, transition: str, args: Mapping[str, Any]) -> bytes:
        if transition not in known.transitions:
            raise UnknownTransition(known.name, transition, known.transitions)
        try:
            raw = encode_exact(dict(args))
        except UNENCODABLE as error:
            raise InvalidArguments(known.name, transition, f"JSON cannot hold the arguments: {error}") from None
        kept = self._validators.get((known.name, transition))
        if kept is None or kept[0] is not known.config:
            check = validator(known.config.graph.get("arguments", {}).get(transition, {}))
            kept = self._validators[known.name, transition] = (known.config, check)
        try:
            kept[1](raw)
        except ValueError as error:
            raise InvalidArguments(known.name, transition, str(error)) from None
        return raw
