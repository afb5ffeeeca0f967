"""kill -9 of a worker process in the middle of a body with branches: they go on elsewhere, each from where it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from statemq import Client
from statemq.server.host import end_with_parent
from tests.faults.branchy import FOLDER, Branchy
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


async def test_branches_go_on_when_their_process_was_killed(url: str, namespace: str, tmp_path: Path) -> None:
    log, workers = tmp_path / "log", list[subprocess.Popen[bytes]]()
    log.touch()

    def start() -> None:
        words = [sys.executable, "-m", "tests.faults.branchy", url, namespace]
        env = os.environ | {"PYTHONPATH": str(ROOT), FOLDER: str(tmp_path)}
        workers.append(subprocess.Popen(words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent()))

    def ran() -> list[list[str]]:
        return [line.split(" ", 2) for line in log.read_text().splitlines()]

    def owner_ran(name: str) -> list[int]:
        return [int(pid) for pid, what, _ in ran() if what == name]

    try:
        async with Client(url, namespace=namespace, machines=[Branchy]) as client:
            start()
            start()
            handle = await client.send(Branchy.branch("a"))
            await wait_until(lambda: owner_ran("first") and owner_ran("quick") and owner_ran("long"))
            (pid,) = owner_ran("long")
            next(worker for worker in workers if worker.pid == pid).kill()
            await wait_until(lambda: len(owner_ran("long")) == 2)
            (tmp_path / "end").touch()
            assert await handle.result(timeout=60) == ["first", "second", "step won", "late", "long"]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    times = Counter(name for _, name, _ in ran())
    assert times.pop("long") == 2
    assert all(n <= (2 if name in ("first", "quick") else 1) for name, n in times.items()), "only what was not recorded yet ran again"
    for name in times | {"long": 1}:
        assert len({drawn for _, what, drawn in ran() if what == name}) == 1, f"{name} was given something else"
