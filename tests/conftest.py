"""A server for the session, a namespace for each test, and a look at what the test left behind."""

from __future__ import annotations

import gc
import os
import signal
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import redis as redis_py
from xdist.remote import Producer

from statemq.server import EmbeddedServer
from tests.leaks import leaks, wipe
from tests.other_server import use_named_server
from tests.spread import TOGETHER, Spread, holds_quick, is_quick, measured, processes

use_named_server()

os.environ.pop(
    "COLUMNS", None
)  # what the tests read is printed for a pipe; with this variable set, as in each of several processes, it would be folded

PASSED = pytest.StashKey[bool]()

# under nohup, and behind a script's &: what the tests start must heed them all the same
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="the inner loop: tests/unit, house, tour and races, and the tests marked quick")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    return processes(config)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Spread:
    return Spread(config, log)


def pytest_collection(session: pytest.Session) -> None:
    gc.disable()  # nothing that is collected is garbage


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()  # it stays to the end: looked through again and again, it costs more than it holds
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """None leaves it to pytest."""
    left_out = config.getoption("quick") and collection_path.is_file() and not holds_quick(collection_path)
    return True if left_out else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes: what is not spread comes first
        items.sort(key=lambda item: not item.nodeid.startswith(TOGETHER))
    if config.getoption("quick"):
        left_out = [item for item in items if not is_quick(item)]
        items[:] = [item for item in items if is_quick(item)]
        config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lines := measured(terminalreporter):
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A running server of the session."""
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="session")
def url(server: EmbeddedServer) -> str:
    return server.url


@pytest.fixture
def namespace(url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own. When the test has passed, nothing unbounded may be left in it (I8);
    a test that means to leave work is marked ``leaves_work``."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    yield name
    with redis_py.Redis.from_url(url, decode_responses=True) as redis:
        left = leaks(redis, name)
        wipe(redis, name)
    if request.node.stash.get(PASSED, False) and not request.node.get_closest_marker("leaves_work"):
        assert not left, "left in Redis (end the work, or mark the test leaves_work):\n  " + "\n  ".join(left)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report
