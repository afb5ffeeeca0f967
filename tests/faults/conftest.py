from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from statemq.server import EmbeddedServer
from tests.chaos.conftest import patient_clients, report, seed

__all__ = ["patient_clients", "report", "seed"]
Serve = Callable[..., EmbeddedServer]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """``serve("--maxmemory", "1mb", appendonly=False)``: a server of the test's own, running."""
    running: list[EmbeddedServer] = []

    def start(*config: str, name: str = "redis", folder: Path | None = None, appendonly: bool = True) -> EmbeddedServer:
        server = EmbeddedServer(folder or tmp_path / f"{name}-{len(running)}", config=config, appendonly=appendonly)
        running.append(server)
        server.start()
        return server

    yield start
    for server in running:
        server.stop()
