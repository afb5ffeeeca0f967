"""Every command of the command line at 80 × 24, with keys that callers chose to do harm: nothing is wider than the terminal, steers it or
ends in a traceback, and what is printed to be copied does what it says. Commands are found by walking the app: a new one is among them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from typer.main import get_command

from statemq import Client, Context, Fail, Machine, query, transition
from statemq.cli import act, app, ends, start
from statemq.cli.fold import Line
from tests.working import working

WIDE = 80
HOSTILE = [
    "plain",
    "k" * 512,
    "word " * 60,
    "日本語" * 50,
    "a\x1b[2J\x1b]0;owned\x07\r\nb\x9b\u202e\u2028",
    "שלום\u202e עולם" * 8,
    "--help",
    "-5",
    ' it\'s "quoted" $HOME `id` ;& |\\ ',
    "line\nline\n" * 20,
    "*/../[a-z]?",
    "[red]\\e[31m{}%s",
]
MENACE = HOSTILE[4]


class Spot(StrEnum):
    HERE = "HERE"
    THERE = "T" * 60


class Walk(Machine[None, Spot], initial=Spot.HERE, partitions=2):
    @transition(source=Spot.HERE, target=Spot.THERE)
    async def go(self, ctx: Context, note: str = "") -> str:
        await ctx.step("s\x1b[2J " + "n" * 300, echo, note)
        return note

    @transition(source=(Spot.HERE, Spot.THERE))
    async def fall(self, ctx: Context, note: str = "") -> None:
        raise Fail(f"{note} {'why ' * 50}")

    @query
    def note(self) -> str:
        return MENACE


async def echo(text: str) -> str:
    return text


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


class Screen:
    """Runs command lines in this process as on a terminal, and checks whatever they print."""

    def __init__(self, folder: Path, url: str, namespace: str, ids: list[str]) -> None:
        self.folder, self.ids = folder, ids
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("STATEMQ_", "NO_COLOR"))}
        self.env |= {"STATEMQ_REDIS": url, "STATEMQ_NAMESPACE": namespace, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
        self.to_copy: list[tuple[Line, str]] = []
        """Each line to copy, and what a person would have copied."""
        self.faults: list[tuple[str, tuple[str, ...], str]] = []

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> tuple[str, str, int]:
        out, err = (Terminal(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        made: list[Line] = []

        def noted(verb: str, *words: str) -> Line:
            made.append(ends_to_copy(verb, *words))
            return made[-1]

        ends_to_copy = ends.to_copy
        with contextlib.ExitStack() as patched:
            for module in (ends, act, start):
                patched.enter_context(patch.object(module, "to_copy", noted))
            patched.enter_context(patch.dict(os.environ, self.env | dict(env or {}), clear=True))
            patched.enter_context(contextlib.chdir(self.folder))
            for name, stream in (("stdin", io.StringIO("{}")), ("stdout", out), ("stderr", err)):
                patched.enter_context(patch.object(sys, name, stream))
            code = app.main(words)
        printed, said = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
        for text in (printed, said):
            self.check(words, text)
        if "Traceback" in said or "statemq: unexpected " in said:
            self.faults.append(("ends in an error that nobody foresaw", words, said))
        self.to_copy += [(line, copied(line, said)) for line in made if shown(line, said)]
        return printed, said, code

    def check(self, words: tuple[str, ...], text: str) -> None:
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)  # colours, on a terminal
        if steers := [char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs")]:
            self.faults.append((f"prints {steers}", words, text))
        self.faults += [("is too wide", words, line) for line in text.split("\n") if cells(line) > WIDE and not for_programs(words, line)]


def cells(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in line)


def for_programs(words: tuple[str, ...], line: str) -> bool:
    """JSON is one line for each thing, and so is a rule of Redis and the text of a drawing program."""
    if words[0] == "acl" or "--format" in words:
        return True
    with contextlib.suppress(ValueError):
        json.loads(line)
        return True
    return False


def shown(line: Line, said: str) -> bool:
    return str(line) in said or f"statemq {line.words[1]} " in said


def copied(line: Line, said: str) -> str:
    """What a person copies: the line, or all of it where it goes on."""
    if str(line) in said:
        return str(line)
    lines = said.split("\n")
    first = next(number for number, text in enumerate(lines) if text.strip().startswith(f"statemq {line.words[1]} "))
    last = next(number for number, text in enumerate(lines) if number >= first and not text.endswith("\\"))
    return "\n".join(lines[first : last + 1])


@pytest.fixture
def screen(tmp_path: Path, url: str, namespace: str) -> Screen:
    """Before a namespace in which every key has gone, failed, waits, is delayed and paused, and no worker lives."""

    ids: list[str] = []

    async def prepare() -> None:
        async with Client(url, namespace=namespace, machines=[Walk]) as client:
            async with working(url, namespace, Walk):
                for name in ("go", "fall"):
                    for handle in [await client.send(Walk, key, name, {"note": key}) for key in HOSTILE]:
                        ids.append(handle.id)
                        await handle.outcome(60)
            for key in HOSTILE:
                ids.append((await client.send(Walk, key, "fall", {"note": key})).id)
                ids.append((await client.send(Walk, key, "fall", {"note": key}, delay=9999)).id)
                await client.pause(Walk, key)

    asyncio.run(prepare())
    return Screen(tmp_path, url, namespace, ids)


def commands() -> Iterator[tuple[list[str], Any]]:
    def below(path: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
        if inner := getattr(command, "commands", None):
            for name, one in inner.items():
                yield from below([*path, name], one)
        else:
            yield path, command

    yield from below([], get_command(app.app))


def arguments(command: Any, key: str, id: str) -> list[str]:
    """What stands in the places of its arguments. There is no such target, so no daemon begins to run."""
    places = {
        "MACHINE": "walk",
        "KEY": key,
        "TRANSITION": "fall",
        "QUERY": "note",
        "ID": id,
        "ROLE": "reader",
        "NAME": "0/1-0",
        "TARGET": f"none {key}.py",
        "TARGET-or-MACHINE": key,
        "FILE": f"{key[:60].replace('/', '.')}.py",
    }
    found = [one.metavar for one in command.params if one.param_type_name == "argument" and one.metavar not in ("ARGUMENT", "NAME")]
    assert set(found) <= set(places), f"say here what stands for {set(found) - set(places)}"
    return [places[name] for name in found]


def options(command: Any) -> Iterator[list[str]]:
    """Each option alone, with a value that means harm."""
    for one in command.params:
        if one.param_type_name == "option" and one.name not in ("help", "redis"):
            yield [one.opts[0]] if one.is_flag else [one.opts[0], MENACE]


ENDS = {"call": ["--timeout", "0"], "result": ["--timeout", "0"], "bench": ["--work", MENACE]}
"""What commands are given that would go on."""

PROCESSES = ("dev",)
"""They start a process to look at their target."""

LAST = ("resume", "cancel", "empty", "discard", "retry")
"""They leave less for the others to see."""


@pytest.mark.leaves_work  # nobody works here any more
def test_every_command_at_80_by_24_with_hostile_keys(screen: Screen) -> None:
    found = sorted(commands(), key=lambda one: LAST.index(one[0][-1]) if one[0][-1] in LAST else -1)
    assert len(found) > 25
    screen.run("--help")
    for path, command in found:
        screen.run(*path, "--help")
        always = ENDS.get(path[-1], [])
        keys = HOSTILE if path[-1] not in PROCESSES else HOSTILE[1:2]
        for words in dict.fromkeys(tuple(arguments(command, key, id)) for key, id in zip(keys, screen.ids[::2], strict=False)):
            screen.run(*path, *always, "--", *words)
        for one in options(command) if path[-1] not in PROCESSES else ():
            screen.run(*path, *always, *one, "--", *arguments(command, "plain", screen.ids[-1]))
        for id in (screen.ids[-1], screen.ids[0], *HOSTILE) if "ID" in [one.metavar for one in command.params] else ():
            screen.run(*path, *always, "--", id)
    assert not screen.faults, "\n".join(f"{what}: {words} {text!r}" for what, words, text in screen.faults)
    assert len({line.words for line, _ in screen.to_copy}) > len(HOSTILE), "which lines to copy were seen?"
    assert any("\n" in text for _, text in screen.to_copy)
    import pathlib

    pathlib.Path("/tmp/k6c").write_text("\n#####\n".join(text for _, text in screen.to_copy))
    script = "statemq() { printf '%s\\0' statemq \"$@\"; printf 'END\\0'; }\n" + "\n".join(text for _, text in screen.to_copy)
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, cwd=screen.folder)
    told = [tuple(one.split("\0")[:-1]) for one in done.stdout.decode().split("END\0")[:-1]]
    assert told == [line.words for line, _ in screen.to_copy]


@pytest.mark.leaves_work
def test_tables_are_whole_at_80_columns_and_plain_where_no_colour_is_wanted(screen: Screen) -> None:
    printed, *_ = screen.run("history", "walk", "plain")
    assert screen.ids[0] in printed.split()  # neither wrapped nor cut
    assert "\x1b[1m" in printed.splitlines()[0]
    assert not re.search(r"\d{4}-\d\d-\d\dT", printed)
    printed, *_ = screen.run("history", "walk", "plain", env={"NO_COLOR": "1"})
    assert "\x1b" not in printed
    assert printed.splitlines()[0].split() == ["AT", "KEY", "TRANSITION", "OUTCOME", "STATES"][: len(printed.splitlines()[0].split())]
    for words in (("queue", "walk"), ("failed", "list", "walk"), ("doctor",)):
        printed, *_ = screen.run(*words, env={"NO_COLOR": "1"})
        assert "\x1b" not in printed


@pytest.mark.leaves_work
def test_the_terminal_itself_says_how_wide_it_is(screen: Screen) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {name: value for name, value in screen.env.items() if name not in ("COLUMNS", "LINES")}
    with open(theirs, "w", encoding="utf-8") as terminal, patch.dict(os.environ, env, clear=True):
        with patch.object(sys, "stdout", terminal):
            assert app.main(["list", "walk", "-n", "3"]) == 0
        terminal.flush()
        lines = os.read(ours, 65536).decode().splitlines()
    os.close(ours)
    assert max(map(cells, lines)) <= WIDE
