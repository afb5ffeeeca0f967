"""What a shell is offered for each word, asked as a shell asks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from statemq import Client
from statemq.server.host import free_port
from tests.command_line import run_here
from tests.integration.door import Door
from tests.working import working

HOSTILE = ["two words", "$(touch owned)", "*", "a\nb", "--help", "\x1b[2J", "it's"]


def offered(line: str, url: str, namespace: str, folder: Path) -> list[str]:
    words = line.split(" ")
    asked = {"_STATEMQ_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    env = {**os.environ, **asked, "STATEMQ_REDIS": url, "STATEMQ_NAMESPACE": namespace}
    done = run_here(env=env, cwd=folder)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.leaves_work
async def test_machines_keys_transitions_states_ids_and_targets(client: Client, url: str, namespace: str, tmp_path: Path) -> None:
    import asyncio

    async with working(url, namespace, Door):
        done = await client.send(Door, "front", "open")
        await done.outcome(60)
        for key in ("back", *HOSTILE):
            await client.call(Door, key, "open", timeout=60)
        await client.pause(Door, "back")
    waits = await client.send(Door, "back", "shut")
    (tmp_path / "shop").mkdir()
    for name in ("gate.py", "shop/__init__.py", "shop/machines.py"):
        (tmp_path / name).touch()

    async def offers(line: str) -> list[str]:
        return await asyncio.to_thread(offered, line, url, namespace, tmp_path)

    assert await offers("statemq get ") == ["door"]
    assert await offers("statemq doctor d") == ["door"]
    assert await offers("statemq get door ") == ["back", "front"]  # and nothing that a shell would take for something else
    assert await offers("statemq call door fr") == ["front"]
    assert await offers("statemq call door front ") == ["open", "shut"]
    assert await offers("statemq send door front sh") == ["shut"]
    assert await offers("statemq query door front ") == ["infinite", "lies", "passes"]
    assert await offers("statemq list door --state ") == ["OPEN", "SHUT"]
    assert await offers("statemq call door front shut --if-state O") == ["OPEN"]
    assert await offers("statemq cancel ") == [waits.id]
    assert set(await offers("statemq show door.")) > {waits.id, done.id}
    assert await offers("statemq failed discard door ") == []
    assert await offers("statemq worker ") == ["gate", "gate.py", "shop", "shop.machines", "shop/"]
    assert await offers("statemq worker gate.py shop/") == ["shop/__init__.py", "shop/machines.py"]
    assert await offers("statemq graph ") == ["door", "gate", "gate.py", "shop", "shop.machines", "shop/"]


def test_where_nothing_answers_nothing_is_offered(namespace: str, tmp_path: Path) -> None:
    assert offered("statemq get ", f"redis://localhost:{free_port()}", namespace, tmp_path) == []
    assert offered("statemq get ", "no url", namespace, tmp_path) == []
    assert offered("statemq get ca", "no url", "no:namespace", tmp_path) == []
    assert "call" in offered("statemq ca", "no url", namespace, tmp_path)
