"""docs/GUIDE.md: each block of Python becomes the file that it names, each console block is typed as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_dev import Dev

GUIDE = Path(__file__).parents[2] / "docs" / "GUIDE.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAID_BY_USE = ["o-3 is paid", "order/o-3 is PAID; come_back needs SHIPPED", "None", "o-3 is PAID, 7.00 paid", "PAID Rome"]


def exchanges(block: str) -> list[tuple[str, str]]:
    """What is typed, and what the page says is answered."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert parts[0] == "", f"a console block begins with what is typed: {block}"
    return [(typed, said) for typed, _, said in (part.partition("\n") for part in parts[1:])]


def test_every_block_of_the_guide_runs_and_answers_what_it_says(tmp_path: Path) -> None:
    blocks: list[tuple[str, str]] = BLOCK.findall(GUIDE.read_text(encoding="utf-8"))
    assert {kind for kind, _ in blocks} == {"python", "console"}, "a block of another kind would not be run"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in {"statemq": "-m statemq", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
        (programs / name).chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_")}
    env |= {"PATH": f"{programs}:{env['PATH']}", "PYTHONPATH": str(GUIDE.parents[1]), "PYTHONIOENCODING": "utf-8"}
    env.pop("PYTEST_XDIST_WORKER", None)
    dev: Dev | None = None
    ran = []
    try:
        for kind, block in blocks:
            if kind == "python":
                named = re.match(r"# (\w+\.py)\n", block)
                assert named, f"a block of Python names its file: {block[:60]}"
                (folder / named[1]).write_text(block)
                if named[1] == "use.py":
                    address = json.loads((folder / ".statemq" / "dev.json").read_text())["redis"]
                    assert typed("python use.py", folder, env | {"STATEMQ_REDIS": address}).splitlines() == SAID_BY_USE
                ran.append(named[1])
                continue
            for line, said in exchanges(block):
                if line.startswith("statemq dev "):
                    dev = Dev(*shlex.split(line)[2:], cwd=folder, env=env).ready()
                    continue
                assert dev is not None
                answer = typed(line.replace(":8080", f":{dev.port}"), folder, env)
                wanted = ".*".join(re.escape(part) for part in said.strip().split("…"))
                assert re.fullmatch(wanted, answer.strip(), re.DOTALL), f"{line} answered:\n{answer}\nthe guide says:\n{said}"
    finally:
        if dev is not None:
            dev.process.terminate()
            dev.process.wait(60)
    assert ran == ["order.py", "use.py", "test_order.py"]


def typed(line: str, folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(["sh", "-c", line], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120)
    refused = line.startswith("statemq can ")  # exit code 1 says no
    if done.returncode != (1 if refused else 0):
        pytest.fail(f"{line}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
