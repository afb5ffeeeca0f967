"""A target may set up logging as it likes: the worker's own lines stay."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from statemq import Client
from statemq.cli.logs import NAMES
from tests.integration.test_working_folder import MACHINE
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]

SET_UPS = {
    "basicConfig": "logging.basicConfig(level=logging.CRITICAL, force=True)",
    "basicConfig to a file": "logging.basicConfig(filename='its.log', level=logging.ERROR, force=True)",
    "dictConfig": "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': True})",
    "dictConfig with a root": """logging.config.dictConfig({"version": 1, "handlers": {"null": {"class": "logging.NullHandler"}},
        "root": {"level": "CRITICAL", "handlers": ["null"]}})""",
    "dictConfig of one of ours": "logging.config.dictConfig({'version': 1, 'loggers': {'statemq.worker': {}, 'statemq': {}}})",
    "fileConfig": """logging.config.fileConfig(io.StringIO("[loggers]\\nkeys=root\\n[handlers]\\nkeys=null\\n[formatters]\\nkeys=\\n"
        "[logger_root]\\nlevel=CRITICAL\\nhandlers=null\\n[handler_null]\\nclass=NullHandler\\nargs=()\\n"))""",
    "no root handlers": "logging.getLogger().handlers.clear()",
    "root level": "logging.getLogger().setLevel(logging.CRITICAL)",
    "disable": "logging.disable(logging.CRITICAL)",
    "all loggers": "[setattr(logger, 'disabled', True) for logger in list(logging.Logger.manager.loggerDict.values())]",
    "no logging": "logging.shutdown()",
}


@pytest.mark.parametrize("how", SET_UPS)
@pytest.mark.parametrize("when", ["at import", "in a handler"])
async def test_the_workers_own_lines_stay(tmp_path: Path, url: str, namespace: str, how: str, when: str) -> None:
    called = f"import io, logging, logging.config\n\ndef set_up():\n    {SET_UPS[how]}\n"
    body = MACHINE.replace('return "paid"', 'set_up(); return "paid"') if when == "in a handler" else f"set_up()\n{MACHINE}"
    (tmp_path / "order.py").write_text(called + body)
    env = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_")} | {"PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "statemq", "worker", "order.py", "--log-transitions", "--redis", url, "--namespace", namespace]
    log = tmp_path / "worker.log"
    with log.open("wb") as said, subprocess.Popen(argv, cwd=tmp_path, env=env, stderr=said) as worker:
        try:
            await wait_until(lambda: "runs order at" in log.read_text(), 60)
            async with Client(url, namespace=namespace) as client:
                assert await client.call("order", "a", "pay", timeout=60) == "paid"
            await wait_until(lambda: "order/a pay NEW → PAID completed" in log.read_text(), 60)
        finally:
            worker.send_signal(signal.SIGTERM)
    lines = [line for line in log.read_text().splitlines() if re.match(r"\d\d:\d\d:\d\d\.\d\d\d ", line)]
    assert [line.split(" ", 2)[2].strip() for line in lines][-1] == "ending in good order; once more ends at once"
    assert len(lines) == len(set(lines)) == 3, lines


async def test_who_names_our_logger_has_its_lines(tmp_path: Path, url: str, namespace: str) -> None:
    (tmp_path / "order.py").write_text(
        "import logging\nlog = logging.getLogger('statemq')\nlog.handlers = [logging.FileHandler('own.log')]\n" + MACHINE
    )
    argv = [sys.executable, "-m", "statemq", "worker", "order.py", "--redis", url, "--namespace", namespace]
    with subprocess.Popen(argv, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True) as worker:
        try:
            await wait_until(lambda: (tmp_path / "own.log").exists() and "runs order at" in (tmp_path / "own.log").read_text(), 60)
        finally:
            worker.send_signal(signal.SIGTERM)
        assert worker.stderr and "runs order" not in worker.stderr.read()


def test_all_loggers_of_ours_are_named() -> None:
    used = {name for path in (ROOT / "statemq").rglob("*.py") for name in re.findall(r'getLogger\("(statemq[^"]*)"', path.read_text())}
    assert used <= set(NAMES), "name them in statemq/cli/logs.py"
