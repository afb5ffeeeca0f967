"""mypy --strict and pyright accept what is right and refuse exactly what is planted."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ACCEPTED, REFUSED = HERE / "accepted.py", HERE / "refused.py"
PLANTED = {number for number, line in enumerate(REFUSED.read_text().splitlines(), 1) if line.endswith("# refused")}


def run(*command: str) -> str:
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, env={**os.environ, "NO_COLOR": "1"})
    return ran.stdout + ran.stderr


def mypy(path: Path, cache: Path) -> tuple[set[int], str]:
    pytest.importorskip("mypy")
    arguments = ["--strict", "--no-error-summary", "--follow-imports=silent", "--cache-dir", str(cache)]
    text = run(sys.executable, "-m", "mypy", "--config-file", os.devnull, "--python-version", "3.11", *arguments, str(path))
    return {int(line) for line in re.findall(rf"{path.name}:(\d+): error:", text)}, text


def pyright(path: Path) -> tuple[set[int], str]:
    pytest.importorskip("pyright")
    if shutil.which("node") is None:
        pytest.skip("pyright needs node")
    text = run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(path))
    if "error:" not in text and "0 errors" not in text:
        pytest.skip(f"pyright cannot run here: {text[-200:]}")  # its own download of the checker needs the network
    return {int(line) for line in re.findall(rf"{path.name}:(\d+):\d+ - error:", text)}, text


@pytest.mark.typing
def test_mypy_accepts(tmp_path: Path) -> None:
    found, text = mypy(ACCEPTED, tmp_path)
    assert not found, text
    assert "error:" not in text, text


@pytest.mark.typing
def test_mypy_refuses(tmp_path: Path) -> None:
    found, text = mypy(REFUSED, tmp_path)
    assert found == PLANTED, text


@pytest.mark.typing
def test_pyright_accepts() -> None:
    found, text = pyright(ACCEPTED)
    assert not found, text


@pytest.mark.typing
def test_pyright_refuses() -> None:
    found, text = pyright(REFUSED)
    assert found == PLANTED, text


@pytest.mark.quick
def test_what_is_accepted_also_runs() -> None:
    runpy.run_path(str(ACCEPTED))
