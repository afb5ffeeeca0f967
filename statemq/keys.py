"""The only place that spells a Redis key.

``T`` of DESIGN.md is ``<namespace>:{<machine>:<partition>}``; the hash tag comes first and holds no
user text but the machine's name, which is an identifier, so a key never changes the slot.
"""

from __future__ import annotations

import zlib


def partition_of(key: str, partitions: int) -> int:
    """The partition of an instance: ``crc32(key) % partitions``, key as UTF-8."""
    return zlib.crc32(key.encode()) % partitions


def machines(namespace: str) -> str:
    return f"{namespace}:machines"


def config(namespace: str, machine: str) -> str:
    return f"{namespace}:{{{machine}}}:config"


def workers(namespace: str, machine: str) -> str:
    return f"{namespace}:{{{machine}}}:workers"


def workers_about(namespace: str, machine: str) -> str:
    return f"{namespace}:{{{machine}}}:workers:about"


def audit(namespace: str, machine: str) -> str:
    return f"{namespace}:{{{machine}}}:audit"


def news_channel(namespace: str, machine: str) -> str:
    """Where releases, joins and pauses of a machine are announced (a hint, never the truth)."""
    return f"{namespace}:{{{machine}}}:news"


def reply_channel(namespace: str, client: str) -> str:
    return f"{namespace}:reply:{client}"


def forwarded_from(partition: int) -> str:
    """The field of ``T:received`` for entries that were added by hand to that partition."""
    return f"hand:{partition}"


class PartitionKeys:
    """The keys of one partition; build once and keep."""

    __slots__ = (
        "accepted",
        "commands",
        "failed",
        "history",
        "inbox_",
        "instance_",
        "lease",
        "machine",
        "namespace",
        "number",
        "once_",
        "outbox",
        "outcomes_",
        "ready",
        "received",
        "state_",
        "steps_",
        "tag",
        "timers",
        "timers_data",
    )

    def __init__(self, namespace: str, machine: str, number: int) -> None:
        self.namespace, self.machine, self.number = namespace, machine, number
        self.tag = tag = f"{namespace}:{{{machine}:{number}}}"
        self.commands = f"{tag}:commands"
        self.accepted = f"{tag}:accepted"
        self.lease = f"{tag}:lease"
        self.ready = f"{tag}:ready"
        self.timers = f"{tag}:timers"
        self.timers_data = f"{tag}:timers:data"
        self.outbox = f"{tag}:outbox"
        self.received = f"{tag}:received"
        self.history = f"{tag}:history"
        self.failed = f"{tag}:failed"
        self.instance_ = f"{tag}:instance:"
        self.steps_ = f"{tag}:steps:"
        self.inbox_ = f"{tag}:inbox:"
        self.outcomes_ = f"{tag}:outcomes:"
        self.state_ = f"{tag}:in:"
        self.once_ = f"{tag}:once:"

    def instance(self, key: str) -> str:
        return self.instance_ + key

    def steps(self, command_id: str) -> str:
        return self.steps_ + command_id

    def inbox(self, key: str) -> str:
        return self.inbox_ + key

    def outcomes(self, period: int) -> str:
        return f"{self.outcomes_}{period}"

    def in_state(self, state: str) -> str:
        return self.state_ + state

    def once(self, key: str, idempotency_key: str) -> str:
        """Two texts in one name: the first one's length keeps ("a:b", "c") and ("a", "b:c") apart."""
        return f"{self.once_}{len(key)}:{key}:{idempotency_key}"

    def touched(self) -> str:
        """Written by a client right before it waits for disk or replicas."""
        return f"{self.tag}:touched"

    def alive_channel(self, worker: str) -> str:
        """The worker is subscribed to it while it lives; sharded, so it lies where the partition lies (P5)."""
        return f"{self.tag}:alive:{worker}"
