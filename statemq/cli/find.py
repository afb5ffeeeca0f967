"""Which Redis and which namespace are meant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from statemq.cli.ends import say
from statemq.config import DEFAULT_NAMESPACE, DEFAULT_URL, check_namespace, shown
from statemq.errors import UsageError

DEV_FILE = Path(".statemq") / "dev.json"


class Place(NamedTuple):
    url: str
    namespace: str

    def __repr__(self) -> str:
        return f"Place({shown(self.url)}, {self.namespace})"


class Dev(NamedTuple):
    """A running `dev`: where it is, and the targets it runs; modules among them are imported from ``cwd``."""

    folder: Path
    url: str
    namespace: str
    targets: list[str]
    cwd: Path


class Targets(NamedTuple):
    names: list[str]
    cwd: Path | None = None
    """Where modules among them are to be found; None for the working folder."""


def find(redis: str | None, namespace: str | None) -> Place:
    """The Redis of ``--redis``, ``STATEMQ_REDIS``, the nearest running `dev` (said on stderr), or the default, in this order.

    The namespace of a `dev` counts only together with its Redis. Raises UsageError for an impossible namespace.
    """
    url = redis or os.environ.get("STATEMQ_REDIS")
    wanted = namespace or os.environ.get("STATEMQ_NAMESPACE")
    if not url and (dev := find_dev(tell=True)):
        say(f"using the dev server of {dev.folder} ({shown(dev.url)})")
        url, wanted = dev.url, wanted or dev.namespace
    return Place(url or DEFAULT_URL, check_namespace(wanted or DEFAULT_NAMESPACE))


def find_targets(target: str | None) -> Targets:
    """The targets of ``--target``, ``STATEMQ_TARGET`` (several by commas), or the nearest running `dev`; may be none."""
    if given := target or os.environ.get("STATEMQ_TARGET"):
        return Targets([part.strip() for part in given.split(",") if part.strip()])
    dev = find_dev()
    return Targets(dev.targets, dev.cwd) if dev else Targets([])


def find_dev(start: Path | None = None, tell: bool = False) -> Dev | None:
    """The `dev` that runs in this folder or the nearest one above; ``tell`` of one that no longer runs."""
    here = (start or Path.cwd()).resolve()
    for folder in [here, *here.parents]:
        about = _read(folder / DEV_FILE)
        if about is None:
            continue
        if _runs(about.get("pid")):
            targets = [str(target) for target in about.get("targets") or []]
            namespace, cwd = str(about.get("namespace") or DEFAULT_NAMESPACE), Path(str(about.get("cwd") or folder))
            return Dev(folder, str(about["redis"]), namespace, targets, cwd)
        if tell:
            say(f"the dev server of {folder} does not run any more")
    return None


def _read(path: Path) -> dict[str, Any] | None:
    """What the file says; None if there is none."""
    if not path.is_file():
        return None
    from statemq.codec import decode

    try:
        about = decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}); remove it, or name the Redis with --redis") from None
    if not isinstance(about, dict) or not isinstance(about.get("redis"), str):
        raise UsageError(f'{path} names no "redis"; remove it, or name the Redis with --redis')
    return about


def _runs(pid: Any) -> bool:
    """Whether that process lives; without a pid it is believed."""
    if not isinstance(pid, int) or pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
