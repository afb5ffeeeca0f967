"""The table of what Python sends (``store/acl.py``) names each command that stands in the sources, and no other."""

from __future__ import annotations

import ast
import re
import socket
from pathlib import Path

from statemq.config import Role
from statemq.server import EmbeddedServer
from statemq.store import acl

PACKAGE = Path(__file__).parents[2] / "statemq"
SPEAKERS = [*PACKAGE.glob("store/*.py"), *PACKAGE.glob("worker/*.py")]
SCRIPTS = {"FCALL", "EVALSHA", "SCRIPT|LOAD", "FUNCTION|LIST", "FUNCTION|LOAD", "FUNCTION|DELETE"}
DURABLE = {"WAIT", "WAITAOF", "PEXPIRE"}
FREE = {"AUTH"}
"""Needs no right."""


def test_the_table_is_what_the_sources_say(server: EmbeddedServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:  # redis-py reads the answer as another command's
        connection.sendall(b"COMMAND LIST\r\n")
        lines = connection.makefile("rb")
        there = {[lines.readline(), lines.readline()][1].strip().decode().upper() for _ in range(int(lines.readline()[1:]))}
    sent = set[str]()
    for path in SPEAKERS:
        if path.name != "acl.py":
            for node in ast.walk(ast.parse(path.read_text())):
                sent |= _sent(node, there)
    listed = set[str]().union(*acl.SENT.values())
    assert sent - SCRIPTS - DURABLE - FREE == listed | acl.IF_ALLOWED


def _sent(node: ast.AST, there: set[str]) -> set[str]:
    """The commands among a call's or a tuple's words; of those with subcommands with the word behind."""
    words: list[ast.expr] = []
    if isinstance(node, ast.Call):
        words = node.args
    elif isinstance(node, ast.Tuple):
        words = node.elts
    elif isinstance(node, ast.IfExp):
        words = [node.body, node.orelse]
    texts = [word.value if isinstance(word, ast.Constant) and isinstance(word.value, str) else "" for word in words]
    texts = [part for text in texts for part in (text.split() or [""])]  # "XINFO STREAM" is two words
    found = set[str]()
    for before, text, behind in zip(["", *texts], texts, [*texts[1:], ""], strict=False):
        if text.isupper() and text in there and before not in acl.CONTAINERS:
            found.add(f"{text}|{behind}" if text in acl.CONTAINERS else text)
    return found


def test_every_script_has_its_role() -> None:
    assert set().union(*acl.RUN.values()) == set(acl.sources())
    for script in acl.sources():
        assert acl.called_by(script) or script == "rights", f"no call was found in {script}"
    for script, text in acl.sources(shared=True).items():
        plain, all_calls = re.findall(r"redis\.p?call\('[A-Z]+'", text), re.findall(r"redis\.p?call", text)
        assert len(plain) == len(all_calls), f"{script}: write each call as redis.call('NAME', …), so that acl sees which it is"


def test_the_rule_is_closed_before_it_is_opened() -> None:
    for role in Role:
        words = acl.rule(role, "shop").split()
        assert words[:3] == ["resetkeys", "resetchannels", "-@all"]
        assert all(word.startswith(("+", "~shop:", "%R~shop:", "&shop:")) for word in words[3:])
        assert not any("@" in word or "*" in word for word in words[3:] if word.startswith("+"))
