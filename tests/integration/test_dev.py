"""``statemq dev`` with everything it starts."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from statemq.server.host import free_port
from tests.waiting import block_until

ROOT = Path(__file__).parents[2]
UP_WITHIN_S = 60.0
RESOURCE = "statemq.examples.resource"

LAMP = """
from statemq import Machine, query, transition

class Lamp(Machine, initial="OFF", partitions=4):
    @transition(source="OFF", target="ON")
    def turn_on(self) -> str:
        return "bright"

    @transition(source="ON", target="OFF")
    def turn_off(self) -> str:
        return "dark"
"""


class Dev:
    """A running ``statemq dev``: what it says, and its HTTP."""

    def __init__(self, *words: object, cwd: Path, env: dict[str, str]) -> None:
        self.port = free_port()
        self.cwd, self.env = cwd, env
        port = [] if "--port" in words else ["--port", str(self.port)]
        command = [sys.executable, "-m", "statemq", "dev", *(str(word) for word in words), *port]
        self.process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, condition: Callable[[], Any], timeout_s: float = UP_WITHIN_S) -> Any:
        def look() -> Any:
            return condition() or (self.process.poll() is not None and "ended")

        try:
            said = block_until(look, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it said:\n{self.text}") from None
        assert said != "ended", f"dev ended with {self.process.returncode}; it said:\n{self.text}"
        return said

    def until_said(self, pattern: str, times: int = 1) -> None:
        self.until(lambda: len(re.findall(pattern, self.text)) >= times)

    def ready(self) -> Dev:
        self.until_said("Try it:")
        return self

    def request(self, method: str, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body=b"" if method == "POST" else None, headers={"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def post(self, path: str) -> Any:
        status, answer = self.request("POST", path)
        assert status == 200, (status, answer, self.text)
        return answer

    def get(self, path: str) -> Any:
        status, answer = self.request("GET", path)
        assert status == 200, (status, answer, self.text)
        return answer

    def statemq(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "statemq", *words]
        return subprocess.run(command, cwd=cwd, env=self.env, capture_output=True, text=True, check=False, timeout=60)

    def family(self) -> list[int]:
        """The processes below it."""
        return descendants(self.process.pid)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def close(self) -> None:
        family = self.family()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(30)
        assert self.process.stdout
        self.process.stdout.close()
        block_until(lambda: all(gone(pid) for pid in family), 30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder, with a subfolder to call from."""
    (tmp_path / "work" / "below").mkdir(parents=True)
    return tmp_path / "work"


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Dev]]:
    started: list[Dev] = []
    env = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_")}
    env |= {"PYTHONPATH": str(ROOT), "RESOURCE_SECONDS": "0.3"}

    def begin(*words: object, **more: str) -> Dev:
        dev = Dev(*words, cwd=folder, env=env | more)
        started.append(dev)
        return dev

    yield begin
    for dev in started:
        dev.close()


Start = Callable[..., Dev]


def test_it_runs_the_example_by_http_and_by_the_command_line(start: Start, folder: Path) -> None:
    dev = start(RESOURCE).ready()
    assert dev.post("/resource/my-machine/setUp") == "my-machine is now UP"
    assert dev.post("/resource/my-machine/setUp") == "my-machine is already UP"
    said = dev.statemq("call", "resource", "my-machine", "tearDown", cwd=folder / "below")
    assert (said.returncode, json.loads(said.stdout)) == (0, "my-machine is now DOWN"), said.stderr
    assert f"using the dev server of {folder}" in said.stderr


@pytest.mark.quick
def test_the_lines_of_the_banner_do_what_they_say(start: Start, folder: Path) -> None:
    dev = start(RESOURCE).ready()
    about = json.loads((folder / ".statemq" / "dev.json").read_text())
    assert about["targets"] == [RESOURCE]
    assert (about["http"], about["cwd"], about["pid"]) == (f"http://localhost:{dev.port}", str(folder), dev.process.pid)
    ((by_hand, port, stream),) = re.findall(
        r"^    (.*redis-cli -p (\d+) XADD '(\S+)' '\*' key my-machine transition setUp)$", dev.text, re.M
    )
    assert about["redis"].endswith(f":{port}")
    password = (folder / ".statemq" / "password").read_text().strip()
    assert by_hand.startswith("REDISCLI_AUTH=$(cat .statemq/password) ") and password not in dev.text
    with redis_py.Redis(port=int(port)) as stranger, pytest.raises(redis_py.AuthenticationError):
        stranger.ping()
    with redis_py.Redis(port=int(port), password=password, decode_responses=True) as redis:
        redis.xadd(stream, {"key": "my-machine", "transition": "setUp"})
        block_until(lambda: redis.hget(stream.replace(":commands", ":instance:my-machine"), "state") == "UP")


def test_ctrl_c_ends_all_and_a_restart_keeps_the_state(start: Start, folder: Path) -> None:
    dev = start(RESOURCE).ready()
    dev.post("/resource/a/setUp")
    family = dev.family()
    assert dev.end(signal.SIGINT) == 130
    assert all(gone(pid) for pid in family)
    assert not (folder / ".statemq" / "dev.json").exists()
    again = start(RESOURCE).ready()
    assert again.get("/resource/a")["state"] == "UP"
    assert again.end(signal.SIGTERM) == 0
    fresh = start(RESOURCE, "--fresh").ready()
    assert fresh.get("/resource/a")["exists"] is False


def test_a_transition_goes_on_after_its_worker_was_killed(start: Start, folder: Path) -> None:
    dev = start(RESOURCE, "--crash", "1", RESOURCE_SECONDS="1").ready()
    assert dev.post("/resource/a/setUp") == "a is now UP"
    dev.until_said(r"killing worker process \d+ in the middle of .*\(--crash\)", times=2)
    dev.until_said(r"worker \(process \d+\) ended with SIGKILL after .*; starting it again in 0", times=2)


def test_a_save_is_used_and_a_bad_one_keeps_the_former_code(start: Start, folder: Path) -> None:
    lamp = folder / "lamp.py"
    lamp.write_text(LAMP)
    dev = start("lamp.py").ready()
    assert dev.post("/lamp/a/turn_on") == "bright"
    lamp.write_text(LAMP + "\nundefined_name\n")
    dev.until_said(r"lamp\.py saved, but it cannot be used; the former code goes on")
    dev.until_said(r"lamp\.py, line \d+:")
    assert dev.post("/lamp/a/turn_off") == "dark"
    lamp.write_text(LAMP.replace("bright", "very bright indeed"))
    dev.until_said(r"lamp\.py saved; restarting")
    dev.until_said(r"statemq: restarted")
    assert dev.post("/lamp/a/turn_on") == "very bright indeed"


def test_without_reload_a_save_changes_nothing(start: Start, folder: Path) -> None:
    lamp = folder / "lamp.py"
    lamp.write_text(LAMP)
    dev = start("lamp.py", "--no-reload").ready()
    lamp.write_text(LAMP.replace("bright", "very bright indeed"))
    assert dev.post("/lamp/a/turn_on") == "bright"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_killed_dev_leaves_no_process_and_no_hindrance(start: Start) -> None:
    dev = start(RESOURCE).ready()
    dev.post("/resource/a/setUp")
    family = dev.family()
    assert len(family) >= 3
    dev.process.kill()
    block_until(lambda: all(gone(pid) for pid in family), 30)
    assert start(RESOURCE).ready().get("/resource/a")["state"] == "UP"


def test_a_killed_server_comes_back_with_what_it_had(start: Start, folder: Path) -> None:
    dev = start(RESOURCE).ready()
    dev.post("/resource/a/setUp")
    url = json.loads((folder / ".statemq" / "dev.json").read_text())["redis"]
    with redis_py.Redis.from_url(url, decode_responses=True) as redis:
        pid = redis.info("server")["process_id"]
    os.kill(pid, signal.SIGKILL)
    dev.until_said("the Redis of this dev has ended; starting it again")
    assert dev.post("/resource/a/tearDown") == "a is now DOWN"


def test_another_redis_is_used_where_one_is_named(start: Start, folder: Path, url: str, namespace: str) -> None:
    dev = start(RESOURCE, "--redis", url, "--namespace", namespace).ready()
    assert dev.post("/resource/a/setUp") == "a is now UP"
    assert not (folder / ".statemq" / "redis").exists()
    with redis_py.Redis.from_url(url, decode_responses=True) as redis:
        assert redis.sismember(f"{namespace}:machines", "resource")
    assert dev.end(signal.SIGTERM) == 0


def ends_with(dev: Dev, code: int, sentence: str) -> None:
    assert dev.process.wait(UP_WITHIN_S) == code, dev.text
    dev._reader.join(30)
    (said,) = [line for line in dev.lines if line.startswith("statemq: ")]
    assert re.search(sentence, said), dev.text
    assert "Traceback" not in dev.text


def test_a_second_dev_on_the_same_folder_is_refused(start: Start) -> None:
    port = start(RESOURCE).ready().port
    ends_with(
        start(RESOURCE, "--port", port), 2, r"a statemq dev runs on .*/\.statemq already \(process \d+, http://localhost:\d+\); stop it, or"
    )


def test_a_taken_port_is_one_sentence(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ends_with(start(RESOURCE, "--port", port), 2, f"port {port} is taken by another program; choose another with --port")


def test_what_is_no_target_is_one_sentence(start: Start, folder: Path) -> None:
    ends_with(start("no.such.module"), 2, 'there is no module "no"')
    (folder / "empty.py").write_text("x = 1\n")
    ends_with(start("empty.py"), 2, "empty.py declares no machine: no class in it subclasses statemq.Machine")
    assert not (folder / ".statemq").exists()


def test_wrong_options_are_one_sentence(start: Start) -> None:
    ends_with(start(RESOURCE, "--crash", "often"), 2, '"often" is no probability for --crash')
    ends_with(start(RESOURCE, "--fresh", "--redis", "redis://localhost:1"), 2, "--fresh forgets the data of dev's own Redis")


def test_no_redis_where_one_was_named_is_exit_code_3(start: Start) -> None:
    ends_with(start(RESOURCE, "--redis", f"redis://127.0.0.1:{free_port()}"), 3, "redis://127.0.0.1")


def gone(pid: int) -> bool:
    """No process of that id runs; one nobody has waited for does not run either."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return Path("/proc/self").exists()


def descendants(pid: int) -> list[int]:
    """All processes below this one, by what ``ps`` says."""
    said = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in said.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, new = [], children.get(pid, [])
    while new:
        found += new
        new = [grandchild for child in new for grandchild in children.get(child, [])]
    return found
