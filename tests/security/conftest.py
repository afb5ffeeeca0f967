from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from statemq.server import EmbeddedServer
from tests.serving import Edge


@pytest.fixture(scope="module")
def redis_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server that one module's serving process keeps."""
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module")
def served(redis_of_module: EmbeddedServer) -> Iterator[Edge]:
    """A serving process with the default limits, no token, and no worker behind it."""
    edge = Edge(redis_of_module.url, "security")
    assert edge.said, edge.end()
    yield edge
    code, errors = edge.end()
    assert (code, errors) == (0, ""), "what a caller sends makes neither a log line nor an end"


@pytest.fixture
def sources() -> list[Path]:
    return sorted((Path(__file__).parents[2] / "statemq").rglob("*.py"))
