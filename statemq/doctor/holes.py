"""Kinds and versions of servers: which statemq can use, and which have known holes that reach it (S20)."""

from __future__ import annotations

import re

import msgspec

Version = tuple[int, int, int]


class Kind(msgspec.Struct, frozen=True):
    """What a server is: ``name`` is Redis, Valkey, or another's own."""

    name: str
    version: Version

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}"

    @property
    def known(self) -> bool:
        return self.name in OLDEST

    @property
    def too_old(self) -> bool:
        return self.known and self.version < OLDEST[self.name]


class Hole(msgspec.Struct, frozen=True):
    """``fixed``: for each server the first versions that are sound, one a line of releases; later lines began sound."""

    name: str
    what: str
    fixed: dict[str, list[Version]]

    def reaches(self, kind: Kind) -> bool:
        fixed = self.fixed.get(kind.name)
        if not fixed:
            return False
        same_line = [version for version in fixed if version[:2] == kind.version[:2]]
        return kind.version < same_line[0] if same_line else kind.version < max(fixed)

    def sound(self, kind: Kind) -> str:
        """The least change that closes it: the same line's, else the next line's that has a sound version."""
        fixed = sorted(self.fixed[kind.name])
        return ".".join(map(str, next((v for v in fixed if v > kind.version), fixed[-1])))


OLDEST = {"Redis": (7, 0, 0), "Valkey": (7, 2, 0)}

HOLES = [
    Hole(
        "CVE-2025-49844",
        "a user who may run scripts can take over the server",
        {
            "Redis": [(6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)],
            "Valkey": [(7, 2, 11), (8, 0, 6), (8, 1, 4)],
        },
    ),
    Hole("CVE-2022-24735", "a user who may run scripts can run some as another user", {"Redis": [(6, 2, 7), (7, 0, 0)]}),
]


def kind_of(info: dict[str, str]) -> Kind:
    """From INFO; forks tell their own version beside the Redis version they speak for."""
    for name in ("valkey", "dragonfly", "keydb", "garnet"):
        if f"{name}_version" in info or info.get("server_name") == name:
            said = info.get(f"{name}_version") or info.get("redis_version", "")
            return Kind(name.capitalize(), _version(said))
    return Kind("Redis", _version(info.get("redis_version", "")))


def _version(text: str) -> Version:
    found = [int(number) for number in re.findall(r"\d+", text.partition("-")[0])[:3]]
    major, minor, patch = found + [0] * (3 - len(found))
    return major, minor, patch
