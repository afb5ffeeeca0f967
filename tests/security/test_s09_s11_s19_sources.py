"""S9, S11, S19: what the sources do not do: run data, build scripts from it, talk to anybody when imported, or come unlocked."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from statemq import Client
from statemq.keys import PartitionKeys, partition_of
from tests.security.machines import Echo
from tests.serving import ROOT
from tests.waiting import wait_until
from tests.working import working

PACKAGE = ROOT / "statemq"
LUA = sorted((PACKAGE / "lua").glob("*.lua"))

FORBIDDEN_MODULES = {
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "yaml",
    "jsonpickle",
    "dbm",
    "copyreg",
    "code",
    "xmlrpc",
    "telnetlib",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "input", "breakpoint"}
FORBIDDEN_ATTRIBUTES = {"system", "popen", "loads_pickle", "get_type_hints_eval", "format_map"}
BY_NAME = {"import_module", "spec_from_file_location", "module_from_spec", "exec_module"}
"""Importing by a name: only of a target that somebody wrote on a command line."""


def trees(sources: list[Path]) -> list[tuple[str, ast.AST]]:
    return [(str(path.relative_to(PACKAGE)), ast.parse(path.read_text())) for path in sources]


def test_s9_nothing_that_runs_or_unpickles_data(sources: list[Path]) -> None:
    assert len(sources) > 100
    found = []
    for name, tree in trees(sources):
        for node in ast.walk(tree):
            line = f"{name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                found += [f"{line} imports {a.name}" for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
                found.append(f"{line} imports {node.module}")
            elif isinstance(node, ast.Call):
                called = node.func
                if isinstance(called, ast.Name) and called.id in FORBIDDEN_CALLS:
                    found.append(f"{line} calls {called.id}")
                if isinstance(called, ast.Attribute) and called.attr in FORBIDDEN_ATTRIBUTES:
                    found.append(f"{line} calls {called.attr}")
                if any(k.arg == "shell" and not (isinstance(k.value, ast.Constant) and k.value.value is False) for k in node.keywords):
                    found.append(f"{line} starts a shell")
    assert not found


def test_s9_modules_are_named_by_people_only(sources: list[Path]) -> None:
    found = {
        name
        for name, tree in trees(sources)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in BY_NAME
    }
    assert found == {"target.py", "cli/app.py", "native.py"}  # the others: their own modules, to start fast; gevent, where it is in use
    callers = {
        name
        for name, tree in trees(sources)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "statemq.target"
    }
    assert not {name for name in callers if name.startswith(("store/", "worker/", "lua/", "client/"))}, callers


NAMES = ["os:system", "os.system", "__init__", "__class__", "spec", "say.__globals__", "builtins:eval", "_note", "ask", "say;ask", "../say"]


@pytest.mark.parametrize("name", NAMES)
async def test_s9_a_name_from_redis_is_only_looked_up(url: str, namespace: str, name: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    async with Client(url, namespace=namespace, machines=[Echo]) as client, Redis.from_url(url) as redis:
        await client.get(Echo, "a")
        part = PartitionKeys(namespace, "echo", partition_of("a", 2))
        async with working(url, namespace, Echo, unknown_wait_s=0):
            await redis.xadd(part.commands, {"key": "a", "transition": name, "args": f'{{"what": "touch {mark}"}}'})
            await wait_until(lambda: client.failed(Echo))
            (letter,) = await client.failed(Echo)
            assert letter.reason == f'echo has no transition "{name}"; it has: say, refuse, fail, crash, step'
            assert not mark.exists()
            assert await client.call(Echo.say("a", 1), timeout=20) == 1


def test_s11_scripts_are_files_and_nothing_is_pasted_into_them() -> None:
    """The library's text is the files' text; its only variable part is the hash of that text and the names of the files."""
    source = (PACKAGE / "store" / "scripts.py").read_text()
    tree = ast.parse(source)
    (builder,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "library"]
    assert not builder.args.args, "made of no argument"
    pasted = {
        name.id
        for node in ast.walk(builder)
        if isinstance(node, ast.FormattedValue)
        for name in ast.walk(node)
        if isinstance(name, ast.Name)
    }
    assert pasted <= {"name", "files", "words", "mark", "s", "f", "_flags", "repr", "body", "register"}, pasted


def test_s11_only_the_loader_sends_scripts(sources: list[Path]) -> None:
    senders = {
        name
        for name, tree in trees(sources)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in ("EVAL", "EVALSHA", "FCALL", "SCRIPT", "FUNCTION")
    }
    names_only = {"store/acl.py", "doctor/server.py"}  # what is allowed, and what to say if it is not
    removes = {"store/libraries.py"}  # old ones; it loads and calls none
    assert {name for name in senders if not name.startswith("bench/")} - names_only - removes == {"store/scripts.py"}


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_s11_no_script_runs_text_or_reads_user_data_as_code(path: Path) -> None:
    text = re.sub(r"--.*", "", path.read_text())
    for word in ("loadstring", "load(", "dofile", "require", "setfenv", "redis.call(ARGV", "redis.pcall(ARGV", "redis.call(KEYS", "_G["):
        assert word not in text, f"{path.name}: {word}"
    # each command's name is written down
    assert not re.findall(r"redis\.p?call\((?!')", text)


TAKEN = re.compile(r"redis\.p?call\('[A-Z]+',(?: *'[A-Z]+',)? *([^,)]+)")
"""The first thing behind the command and its subcommand."""
DECLARED = re.compile(r"KEYS\[.+\]|[a-z_]+|[a-z]+\.[a-z_]+|[a-z_]+\[(?:\d|[a-z]+)\]|period_key\(.*|held_key\(.*|unpack\(journals")


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_s11_no_script_spells_a_key(path: Path) -> None:
    """Keys come from KEYS; only the period of T:outcomes (P31) and the caller of T:held are added in the script, to a declared stem."""
    text = re.sub(r"--.*", "", path.read_text())
    for key in TAKEN.findall(text):
        assert DECLARED.fullmatch(key.strip()) and key.strip() != "ARGV", f"{path.name}: {key}"


IMPORTS = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the network is used at import")
socket.socket.connect = socket.socket.connect_ex = socket.socket.bind = socket.socket.sendto = refuse
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse
import importlib, pkgutil, statemq
names = [m.name for m in pkgutil.walk_packages(statemq.__path__, "statemq.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_s19_importing_talks_to_nobody() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 100


@pytest.mark.parametrize("name", ["run", "dev", "uv"])
def test_s19_every_requirement_is_locked_with_hashes(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if entry.strip() and not entry.lstrip().startswith(("#", "--"))]
    assert entries
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+(\[[\w,]+\])?==[^\s;]+", entry), entry
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert "://" not in "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def test_s19_the_environment_is_made_of_the_locks_only() -> None:
    script = (ROOT / "bin" / "_env").read_text()
    installs = [line for line in script.splitlines() if re.search(r"\b(pip (install|sync)|-m pip install)\b", line)]
    assert installs
    for line in installs:
        rest = script[script.index(line) :]
        assert "--require-hashes" in rest.split("\n\n")[0], line
