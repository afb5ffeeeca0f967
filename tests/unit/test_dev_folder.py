"""The data folder of `dev`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from statemq.cli.dev_folder import About, Folder, from_anywhere
from statemq.errors import UsageError

ABOUT = About(
    redis="redis://127.0.0.1:20000",
    http="http://localhost:8080",
    namespace="statemq",
    targets=["statemq.examples.resource"],
    cwd="/somewhere",
    pid=4711,
)


def test_it_hides_itself_from_git_and_is_found_while_it_runs(tmp_path: Path) -> None:
    folder = Folder(tmp_path / ".statemq")
    folder.open()
    assert (folder.path / ".gitignore").read_text() == "*\n"
    folder.write(ABOUT)
    about = folder.path / "dev.json"
    assert json.loads(about.read_text()) == {
        "redis": "redis://127.0.0.1:20000",
        "http": "http://localhost:8080",
        "namespace": "statemq",
        "targets": ["statemq.examples.resource"],
        "cwd": "/somewhere",
        "pid": 4711,
    }
    assert about.stat().st_mode & 0o777 == 0o600
    assert not list(folder.path.glob("*.new"))
    folder.close()
    assert not about.exists()


@pytest.mark.parametrize("made", [False, True])
def test_others_may_not_write_to_it_whatever_the_umask(tmp_path: Path, made: bool) -> None:
    folder = Folder(tmp_path / ".statemq")
    former = os.umask(0)
    try:
        if made:
            folder.path.mkdir()
        folder.open()
        folder.write(ABOUT)
    finally:
        os.umask(former)
    assert not (folder.path.stat().st_mode | (folder.path / "dev.json").stat().st_mode) & 0o022
    folder.close()


def test_it_belongs_to_one_dev_at_a_time(tmp_path: Path) -> None:
    first, second = Folder(tmp_path), Folder(tmp_path)
    first.open()
    with pytest.raises(UsageError, match="that is just starting uses"):
        second.open()
    first.write(ABOUT)
    with pytest.raises(
        UsageError, match=r"runs on .* already \(process 4711, http://localhost:8080\); stop it, or give this one --data DIR"
    ):
        second.open()
    first.close()
    second.open()
    second.close()


def test_what_a_killed_dev_left_is_no_hindrance(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from statemq.cli.dev_folder import About, Folder\n"
        "folder = Folder(pathlib.Path(sys.argv[1]))\n"
        "folder.open()\n"
        "folder.write(About('redis://h', 'http://h', 'n', [], '/', os.getpid()))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False).returncode == -9
    assert (tmp_path / "dev.json").exists()
    folder = Folder(tmp_path)
    folder.open()
    assert not (tmp_path / "dev.json").exists()
    folder.close()


def test_forgetting_leaves_nothing_of_the_server(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.open()
    folder.forget()
    (folder.redis / "appendonlydir").mkdir(parents=True)
    folder.forget()
    assert not folder.redis.exists()
    folder.close()


def test_the_port_is_remembered(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.open()
    assert folder.last_port() is None
    folder.remember_port(20_001)
    assert folder.last_port() == 20_001
    folder.close()


RUBBISH = ["99999999", "-1", "0", "80", "٢٠٠٠١", "twenty", "", "20001 20002", "1" * 5000, "\x00", "65536"]


@pytest.mark.parametrize("said", RUBBISH)
def test_rubbish_in_the_port_file_is_no_port(tmp_path: Path, said: str) -> None:
    folder = Folder(tmp_path / ".statemq")
    folder.open()
    (folder.path / "port").write_text(said)
    assert folder.last_port() is None
    folder.remember_port(20_001)
    assert folder.last_port() == 20_001
    folder.close()


def test_what_is_no_file_is_no_port_and_one_sentence(tmp_path: Path) -> None:
    folder = Folder(tmp_path / ".statemq")
    folder.open()
    os.mkfifo(folder.path / "port")
    assert folder.last_port() is None
    (folder.path / "port").unlink()
    (folder.path / "port").mkdir()
    assert folder.last_port() is None
    with pytest.raises(UsageError, match=r"^cannot write .*/port: Is a directory$"):
        folder.remember_port(20_001)
    folder.close()


def test_only_this_user_may_look_into_it(tmp_path: Path) -> None:
    """Also into what a former version left."""
    folder = Folder(tmp_path / ".statemq")
    former = os.umask(0)
    try:
        (folder.redis / "appendonlydir").mkdir(parents=True)
        (folder.redis / "appendonlydir" / "appendonly.aof.1.incr.aof").touch()
        (folder.path / "dev.lock").touch()
        folder.open()
        folder.remember_port(20_001)
        folder.password()
        folder.write(ABOUT)
    finally:
        os.umask(former)
    modes = {path: path.stat().st_mode & 0o777 for path in [folder.path, *folder.path.rglob("*")]}
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in modes}
    folder.close()


def test_what_else_lies_in_a_folder_of_the_users_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "notes.txt").touch(mode=0o644)
    (tmp_path / "link").symlink_to("notes.txt")
    folder = Folder(tmp_path)
    folder.open()
    assert (tmp_path.stat().st_mode & 0o777, (tmp_path / "notes.txt").stat().st_mode & 0o777) == (0o755, 0o644)
    folder.close()


@pytest.mark.parametrize(
    "name", ["port", "password", "dev.json", ".gitignore", "dev.lock", "redis", "redis/server.log", "redis/appendonlydir"]
)
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path / ".statemq")
    (folder.path / name).parent.mkdir(parents=True)
    (tmp_path / "others").mkdir()
    (folder.path / name).symlink_to(tmp_path / "others" / "file")
    with pytest.raises(UsageError, match=rf"/{name} is a link, and nothing is written through one; remove it$"):
        folder.open()
    assert not list((tmp_path / "others").iterdir())


@pytest.mark.parametrize("name", ["port", "password", "dev.json", "port.new", "password.new", "dev.json.new"])
def test_a_link_that_comes_later_is_written_over(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path / ".statemq")
    folder.open()
    (folder.path / name).symlink_to(tmp_path / "stolen")
    folder.remember_port(20_001)
    folder.password()
    folder.write(ABOUT)
    assert not (tmp_path / "stolen").exists() and not any(path.is_symlink() for path in folder.path.iterdir())
    folder.close()


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / ".statemq").symlink_to("others")
    with pytest.raises(UsageError, match=r"\.statemq is a link; name the folder that it leads to with --data, or remove it$"):
        Folder(tmp_path / ".statemq").open()
    assert not list((tmp_path / "others").iterdir())


def test_the_password_stays(tmp_path: Path) -> None:
    folder = Folder(tmp_path / ".statemq")
    folder.open()
    first = folder.password()
    assert len(first) == 32 and folder.password() == first
    (folder.path / "password").write_text("ab 'x\n")
    assert folder.password() not in (first, "ab 'x")
    folder.close()


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot use .*file/x as the data folder: Not a directory"):
        Folder(tmp_path / "file" / "x").open()


@pytest.mark.parametrize(
    ("target", "said"),
    [("shop.order", "shop.order"), ("shop.order:Order", "shop.order:Order"), ("a.py", "{}/a.py"), ("b/a.py:Order", "{}/b/a.py:Order")],
)
def test_targets_can_be_read_from_anywhere(target: str, said: str) -> None:
    assert from_anywhere(target) == said.format(os.getcwd())
