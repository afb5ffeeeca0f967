"""A mutant against what must catch it, in a copy of the package: nothing in the shipped one knows of this."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from statemq.server import EmbeddedServer
from tests.mutants.catalog import MUTANTS
from tests.scope.explore import Explorer, Violation
from tests.scope.mistakes import MISTAKES
from tests.scope.store import Box

ROOT = Path(__file__).parents[2]
BUDGET_S = 120.0
"""A mutant that nothing has noticed by then has survived."""

CAUGHT = 1
"""How pytest ends when a test has failed; anything else is no catch."""


class Hunt(msgspec.Struct, frozen=True):
    """``by``: what noticed, and how; empty if the mutant survived."""

    by: str
    seconds: float


def hunt(name: str, server: EmbeddedServer | None = None) -> Hunt:
    """Runs the mutant against its catcher. Raises LookupError when the text that it changes is not there."""
    began_s = time.monotonic()
    mutant = MUTANTS[name]
    mutant.text(ROOT / "statemq")
    by = _by_test(name) if mutant.test else _by_scope(name, server)
    return Hunt(by, time.monotonic() - began_s)


def _by_scope(name: str, server: EmbeddedServer | None) -> str:
    if server is None:
        with tempfile.TemporaryDirectory(prefix="statemq-mutant-") as folder, EmbeddedServer(Path(folder), appendonly=False) as own:
            return _by_scope(name, own)
    mistake = MISTAKES[name]
    box = Box(server, mistake=mistake.broken)
    try:
        Explorer(box, mistake.plan, mistake.faults, mistake.queued).run(deadline_s=BUDGET_S)
    except Violation as found:
        return f"scope, {len(found.way)} events: {re.sub(r'[0-9]{13}', 'T', found.lines[0])}"
    finally:
        box.close()
    return ""


def _by_test(name: str) -> str:
    mutant = MUTANTS[name]
    with tempfile.TemporaryDirectory(prefix="statemq-mutant-") as folder:
        copy = Path(folder)
        for part in ("statemq", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        (copy / "statemq" / mutant.file).write_text(mutant.text(ROOT / "statemq"))
        env = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        words = ["-m", "pytest", "-q", "-x", "-m", "", "--timeout", "30", "-p", "no:cacheprovider", mutant.test]
        try:
            ran = subprocess.run([sys.executable, *words], cwd=copy, env=env, capture_output=True, text=True, timeout=BUDGET_S, check=False)
        except subprocess.TimeoutExpired:
            return f"{_short(mutant.test)} did not end"
    if ran.returncode not in (0, CAUGHT):
        raise RuntimeError(f"{name}: pytest ended with {ran.returncode}:\n{ran.stdout[-3000:]}{ran.stderr[-2000:]}")
    return _short(mutant.test) if ran.returncode == CAUGHT else ""


def _short(test: str) -> str:
    return test.removeprefix("tests/integration/").removeprefix("races/")
