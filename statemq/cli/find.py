"""Which Redis and which namespace are meant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from statemq.cli.dev_trust import NotOurs, is_free, read_own, runs_as_ours
from statemq.cli.ends import say
from statemq.config import DEFAULT_NAMESPACE, DEFAULT_URL, check_namespace, shown

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
    """The Redis of ``--redis``, ``STATEMQ_REDIS``, the nearest running `dev` of ours (said on stderr), or the default, in this order.

    The namespace of a `dev` counts only together with its Redis. Raises UsageError for an impossible namespace.
    """
    wanted = namespace or os.environ.get("STATEMQ_NAMESPACE")
    if not _named(redis) and (dev := find_dev(tell=True)):
        say(f"using the dev server of {dev.folder} ({shown(dev.url)})")
        return Place(dev.url, check_namespace(wanted or dev.namespace))
    return find_named(redis, namespace)


def find_named(redis: str | None, namespace: str | None) -> Place:
    """The same for what runs on its own: nothing that lies in a folder decides where a worker or a server works."""
    wanted = namespace or os.environ.get("STATEMQ_NAMESPACE")
    return Place(_named(redis) or DEFAULT_URL, check_namespace(wanted or DEFAULT_NAMESPACE))


def find_targets(target: str | None, redis: str | None = None) -> Targets:
    """The targets of ``--target``, ``STATEMQ_TARGET`` (several by commas), or the nearest running `dev` of ours; may be none.

    The code of a `dev` counts only together with its Redis: none of it is imported where one is named.
    """
    if given := target or os.environ.get("STATEMQ_TARGET"):
        return Targets([part.strip() for part in given.split(",") if part.strip()])
    dev = None if _named(redis) else find_dev()
    return Targets(dev.targets, dev.cwd) if dev else Targets([])


def _named(redis: str | None) -> str | None:
    return redis or os.environ.get("STATEMQ_REDIS")


def find_dev(start: Path | None = None, tell: bool = False) -> Dev | None:
    """The `dev` of this user that runs in this folder or the nearest one above; ``tell`` of one that is passed over."""
    here = (start or Path.cwd()).resolve()
    for folder in [here, *here.parents]:
        try:
            about = read_own(folder / DEV_FILE)
        except NotOurs as error:
            about = None
            if tell:
                say(f"{folder / DEV_FILE} is not used: {error}")
        if about is None:
            continue
        if runs_as_ours(about.get("pid")) and not is_free((folder / DEV_FILE).parent):
            namespace, cwd = about.get("namespace") or DEFAULT_NAMESPACE, Path(about.get("cwd") or folder)
            return Dev(folder, about["redis"], namespace, about.get("targets") or [], cwd)
        if tell:
            say(f"the dev server of {folder} does not run any more")
    return None
