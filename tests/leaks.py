"""I8 after each test: what is left in the namespace is bounded by instances, by a cap or by a TTL."""

from __future__ import annotations

import re
from typing import Any

MAY_STAY = re.compile(
    r"""machines
    | \{[^}]+\}: (?: config | workers | workers:about | audit | lease | instance:.* | in:.* | history | failed | received )""",
    re.VERBOSE | re.DOTALL,
)
COMMANDS = re.compile(r"\{[^}]+\}:commands")


def leaks(redis: Any, namespace: str) -> list[str]:
    """One line for each key that is still there and should not be. ``redis``: a client that decodes replies."""
    found = []
    for name in sorted(redis.scan_iter(f"{namespace}:*", count=1000)):
        suffix = name.removeprefix(f"{namespace}:")
        if MAY_STAY.fullmatch(suffix) or redis.pttl(name) >= 0:
            continue
        if COMMANDS.fullmatch(suffix):
            if left := redis.xlen(name):
                found.append(f"{name}: {left} commands")
        elif redis.exists(name):  # gone meanwhile is no leak
            found.append(f"{name}: a {redis.type(name)} without a TTL")
    return found


def wipe(redis: Any, namespace: str) -> None:
    for name in list(redis.scan_iter(f"{namespace}:*", count=1000)):
        redis.delete(name)
