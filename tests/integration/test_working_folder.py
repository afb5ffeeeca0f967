"""What lies in the working folder is not imported in place of a library, and the target there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from statemq.python import python
from tests.unit.test_dev_target import GOOD

TRAP = 'raise SystemExit("imported from the working folder")\n'
SHADOWS = ["queue", "json", "redis", "random", "msgspec", "typing_extensions", "uvloop", "falcon", "hiredis", "typer"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(TRAP)
    (tmp_path / "prices.py").write_text("PRICE = 3\n")
    (tmp_path / "order.py").write_text(GOOD)
    return tmp_path


def run(argv: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("target", ["order.py", "order:Order"])
def test_a_child_imports_the_target_and_no_shadow(folder: Path, target: str) -> None:
    ended = run(python("statemq", "graph", target), folder)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert "PAID" in ended.stdout


def test_what_dev_looks_at(folder: Path, tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    ended = run(python("statemq.cli.dev_target", "order.py", str(answer)), folder)
    assert ended.returncode == 0, ended.stderr
    assert b'"wrong":""' in answer.read_bytes() and b"prices.py" in answer.read_bytes()


def test_every_child_is_started_so() -> None:
    sources = Path(python.__code__.co_filename).parent
    starts = [path.name for path in sources.rglob("*.py") if '"-m", "statemq' in path.read_text()]
    assert sorted(starts) == ["stage.py", "start.py"], "only the bench names its own, in a folder of its own"
    assert all("-P" in python(module) for module in ("statemq", "statemq.http"))


def test_a_checkout_that_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from statemq.python import ROOT

    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(ROOT)])
    argv = python("statemq", "graph", "order.py")
    assert "-c" in argv
    ended = run(argv, folder)
    assert ended.returncode == 0 and "PAID" in ended.stdout, ended.stderr
