"""Machine classes for what runs here: queries and guards."""

from __future__ import annotations

import sys
from typing import Any

from statemq.cli.find import find_targets
from statemq.errors import UsageError


def classes(target: str | None, redis: str | None) -> list[type[Any]]:
    """The classes of ``--target``, ``STATEMQ_TARGET`` or the running `dev` (where no Redis is named); may be none. Raises UsageError."""
    from statemq.target import load_target

    targets = find_targets(target, redis)
    if targets.cwd is not None and str(targets.cwd) not in sys.path:
        sys.path.append(str(targets.cwd))
    found = [cls for one in targets.names for cls in load_target(one)]
    return list(dict.fromkeys(found))


def class_of(machine: str, target: str | None, redis: str | None) -> Any:
    """The class of that machine. Raises UsageError when no target is named or none of its machines has that name."""
    found = classes(target, redis)
    if not found:
        raise UsageError(
            "a query runs where the class is: name its target with --target or STATEMQ_TARGET, or ask where dev runs, without --redis"
        )
    for cls in found:
        if cls.spec.name == machine:
            return cls
    known = ", ".join(sorted(cls.spec.name for cls in found))
    raise UsageError(f'the target has no machine "{machine}"; it has: {known}')
