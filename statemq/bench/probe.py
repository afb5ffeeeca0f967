"""What the bench asks of the server itself: its CPU time and memory, how much is queued, who owns what."""

from __future__ import annotations

from statemq.bench.machines import MACHINES
from statemq.bench.pipe import BlockingPipe
from statemq.errors import UsageError
from statemq.keys import PartitionKeys

SCAN_COUNT = 1000


class Probe:
    """Over a connection of its own."""

    def __init__(self, url: str, namespace: str) -> None:
        self.namespace, self.pipe = namespace, BlockingPipe(url)
        if self.info("cluster").get("cluster_enabled") == "1":
            raise UsageError("bench measures one server, not a cluster; give the URL of a single one, or none")

    def close(self) -> None:
        self.pipe.close()

    def info(self, section: str) -> dict[str, str]:
        lines = self.pipe.call("INFO", section).splitlines()
        return {name: value for name, _, value in (line.partition(":") for line in lines)}

    def version(self) -> str:
        said = self.info("server")
        return f"Valkey {said['valkey_version']}" if "valkey_version" in said else f"Redis {said.get('redis_version', '?')}"

    def cpu_s(self) -> float:
        """User and system time of the server so far, wherever it runs."""
        said = self.info("cpu")
        return float(said["used_cpu_user"]) + float(said["used_cpu_sys"])

    def used_memory(self) -> int:
        return int(self.info("memory")["used_memory"])

    def commands_processed(self) -> int:
        return int(self.info("stats")["total_commands_processed"])

    def queued(self, machine: str) -> int:
        """Commands accepted and not ended."""
        return sum(self.pipe.many([("HLEN", part.accepted) for part in self._parts(machine)]))

    def owners(self, machine: str) -> list[str]:
        """Who holds each partition; empty for none."""
        found = self.pipe.many([("HMGET", part.lease, "owner", "token") for part in self._parts(machine)])
        return [owner if owner and token else "" for owner, token in found]

    def drop_history(self, machine: str) -> tuple[int, int]:
        """History and outcomes are gone, as they will be by cap and time; how many outcomes there were, and their bytes."""
        count = size = 0
        for part in self._parts(machine):
            names = self._scan(f"{part.outcomes_}*")
            counts = self.pipe.many([("HLEN", name) for name in names])
            sizes = self.pipe.many([("MEMORY", "USAGE", name, "SAMPLES", 100) for name in names])
            count, size = count + sum(counts), size + sum(s or 0 for s in sizes)
            self.pipe.many([("DEL", name) for name in [*names, part.history]])
        return count, size

    def sweep(self) -> None:
        """Nothing of the run is left in Redis."""
        while names := self._scan(f"{self.namespace}:*"):
            self.pipe.many([("UNLINK", name) for name in names])

    def _parts(self, machine: str) -> list[PartitionKeys]:
        spec = MACHINES[machine].spec
        return [PartitionKeys(self.namespace, spec.name, number) for number in range(spec.partitions)]

    def _scan(self, pattern: str) -> list[str]:
        pattern, names, cursor = pattern.replace("[", "\\["), [], "0"
        while True:
            cursor, found = self.pipe.call("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
            names += found
            if cursor == "0":
                return names
