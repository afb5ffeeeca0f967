"""Which Redis, namespace and targets are meant."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from statemq.cli.app import app
from statemq.cli.dev_trust import runs_as_ours
from statemq.cli.find import Place, find, find_named, find_targets
from statemq.errors import UsageError

DEFAULT = Place("redis://localhost:6379", "statemq")


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


def test_a_dev_whose_number_another_program_has_by_now_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dev(tmp_path)  # with the number of a living process of ours
    lock = tmp_path / ".statemq" / "dev.lock"
    lock.touch()
    assert find(None, None) == DEFAULT
    assert "does not run any more" in capsys.readouterr().err
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert find(None, None).namespace == "dev"


OF_OTHERS = [json.dumps({"redis": "redis://x", name: value}) for name in ("targets", "namespace", "cwd") for value in (5, {"a": 1}, [3])]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"redis": 3}', "[" * 100_000, '{"redis": "redis://x", "targets": "abc"}', *OF_OTHERS])
def test_a_broken_dev_file_is_named(tmp_path: Path, text: str) -> None:
    write_dev(tmp_path)
    (tmp_path / ".statemq" / "dev.json").write_text(text)
    with pytest.raises(UsageError, match=r"dev\.json"):
        find(None, None)


def test_a_folder_of_that_name_is_no_dev_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".statemq" / "dev.json").mkdir(parents=True)
    assert find(None, None) == DEFAULT
    assert "dev.json is no file" in capsys.readouterr().err


def foreign(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def linked(path: Path) -> None:
    moved = path.rename(path.with_name(f"{path.name}.elsewhere"))
    path.symlink_to(moved)


NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")


@pytest.mark.parametrize("what", [".statemq", ".statemq/dev.json"])
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        pytest.param(foreign, "belongs to another user", marks=AS_ROOT),
        pytest.param(lambda path: path.chmod(0o775), "others may write to", id="group"),
        pytest.param(lambda path: path.chmod(0o757), "others may write to", id="others"),
        pytest.param(linked, "link", id="link"),
    ],
)
def test_what_others_have_written_or_could_have_is_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, spoil: Callable[[Path], None], why: str
) -> None:
    write_dev(tmp_path)
    spoil(tmp_path / what)
    assert find(None, None) == DEFAULT
    said = capsys.readouterr().err
    assert f"{tmp_path / '.statemq' / 'dev.json'} is not used: " in said and why in said and len(said.splitlines()) == 1
    assert find_targets(None) == ([], None)


def test_our_own_above_a_foreign_one_is_still_found(tmp_path: Path) -> None:
    write_dev(tmp_path)
    write_dev(tmp_path / "deep", redis="redis://foreign")
    (tmp_path / "deep" / ".statemq").chmod(0o777)
    assert find(None, None).url == "redis://u:secret@localhost:7777"


@pytest.mark.parametrize("text", ["", "{", '{"redis": 3}'])
def test_what_is_not_ours_is_not_even_read(tmp_path: Path, text: str) -> None:
    write_dev(tmp_path)
    file = tmp_path / ".statemq" / "dev.json"
    file.write_text(text)
    file.chmod(0o666)
    assert find(None, None) == DEFAULT


def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".statemq").mkdir()
    os.mkfifo(tmp_path / ".statemq" / "dev.json", 0o600)
    assert find(None, None) == DEFAULT
    assert "is no file" in capsys.readouterr().err


@pytest.mark.parametrize("pid", [None, 0, -1, True, "1", 1 << 40, 1.0])
def test_a_dev_without_a_process_does_not_run(tmp_path: Path, pid: object) -> None:
    write_dev(tmp_path, pid=pid)
    assert find(None, None) == DEFAULT
    assert find_targets(None) == ([], None)


@AS_ROOT
def test_a_process_of_another_user_is_not_our_dev(tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=NOBODY, group=NOBODY, extra_groups=[]) as other:
        write_dev(tmp_path, pid=other.pid)
        assert not runs_as_ours(other.pid)
        assert find(None, None) == DEFAULT
    assert runs_as_ours(os.getpid())


def test_what_runs_on_its_own_never_looks_for_a_dev(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dev(tmp_path)
    assert find_named(None, None) == DEFAULT
    asked: list[Place] = []

    def ended(*given: str | None) -> Place:
        asked.append(find_named(*given))
        raise UsageError("far enough")

    monkeypatch.setattr("statemq.cli.run.find_named", ended)
    for word in ("worker", "serve"):
        assert run(word, "any.py")
    assert asked == [DEFAULT, DEFAULT]
    assert capsys.readouterr().err == ""


def test_no_code_of_a_dev_where_a_redis_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_dev(tmp_path)
    assert find_targets(None, None).names
    assert find_targets(None, "redis://other") == ([], None)
    assert find_targets("x.py", "redis://other") == (["x.py"], None)
    monkeypatch.setenv("STATEMQ_REDIS", "redis://other")
    assert find_targets(None, None) == ([], None)


@pytest.mark.parametrize("words", [("can", "web", "k", "add"), ("query", "web", "k", "add")])
@pytest.mark.parametrize("named", ["no Redis", "--redis", "STATEMQ_REDIS"])
def test_the_commands_import_no_code_that_others_could_have_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    """Without a Redis the folder is open to others; with one it is ours, and of no concern."""

    def ended(*given: object) -> None:
        raise UsageError("far enough")

    monkeypatch.setattr("statemq.cli.ask.ask", ended)
    code, url = tmp_path / "code.py", "redis://other"
    code.write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    write_dev(tmp_path, redis=url, targets=[str(code)])
    assert find_targets(None).names == [str(code)]
    if named == "no Redis":
        (tmp_path / ".statemq").chmod(0o777)
    elif named == "STATEMQ_REDIS":
        monkeypatch.setenv(named, url)
    assert run(*words, *(["--redis", url] if named == "--redis" else []))
    assert not (tmp_path / "imported").exists()


def run(*words: str) -> int:
    """A command line's exit code, in this process."""
    return CliRunner().invoke(app, list(words)).exit_code


def test_an_impossible_namespace_is_refused() -> None:
    with pytest.raises(UsageError, match="is no namespace"):
        find(None, "a{b}")
