"""Which Redis, namespace and targets are meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from statemq.cli.find import Place, find, find_targets
from statemq.errors import UsageError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STATEMQ_REDIS", "STATEMQ_NAMESPACE", "STATEMQ_TARGET"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")


def write_dev(folder: Path, **about: object) -> None:
    (folder / ".statemq").mkdir(exist_ok=True)
    told = {
        "redis": "redis://u:secret@localhost:7777",
        "http": "http://localhost:8080",
        "namespace": "dev",
        "targets": ["/x/a.py:A", "b.c"],
        "cwd": "/x",
    }
    (folder / ".statemq" / "dev.json").write_text(json.dumps(told | {"pid": os.getpid()} | about))


def test_the_default() -> None:
    assert find(None, None) == Place("redis://localhost:6379", "statemq")
    assert find_targets(None) == ([], None)


def test_options_win_over_the_environment_and_that_over_dev(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dev(tmp_path)
    monkeypatch.setenv("STATEMQ_REDIS", "redis://env")
    monkeypatch.setenv("STATEMQ_NAMESPACE", "env")
    assert find("redis://option", "option") == Place("redis://option", "option")
    assert find(None, None) == Place("redis://env", "env")
    assert capsys.readouterr().err == ""


def test_a_running_dev_above_is_found_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dev(tmp_path)
    assert find(None, None) == Place("redis://u:secret@localhost:7777", "dev")
    assert find(None, "other").namespace == "other"
    said = capsys.readouterr()
    assert said.out == ""
    assert f"using the dev server of {tmp_path}" in said.err
    assert "secret" not in said.err
    assert find_targets(None) == (["/x/a.py:A", "b.c"], Path("/x"))
    assert find_targets("x.py, y") == (["x.py", "y"], None)


def test_a_dev_that_ended_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_dev(tmp_path, pid=ended.pid)
    assert find(None, None).url == "redis://localhost:6379"
    assert "does not run any more" in capsys.readouterr().err
    assert find_targets(None) == ([], None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"redis": 3}'])
def test_a_broken_dev_file_is_named(tmp_path: Path, text: str) -> None:
    write_dev(tmp_path)
    (tmp_path / ".statemq" / "dev.json").write_text(text)
    with pytest.raises(UsageError, match=r"dev\.json"):
        find(None, None)


def test_an_impossible_namespace_is_refused() -> None:
    with pytest.raises(UsageError, match="is no namespace"):
        find(None, "a{b}")
