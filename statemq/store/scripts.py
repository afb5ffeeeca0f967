"""The scripts as one function library, named by its hash (P22).

The hash goes into the library's and the functions' names, so old and new processes run side by side.
Where a server refuses functions (an ACL, a full memory at load), the same sources run by EVALSHA. So they do where it has users besides
``default``: a function's name does not hold its text, and whoever may load one can put another text under a name that others call with
their own rights. A script called by its hash is its text.
"""

from __future__ import annotations

import hashlib
import logging
import re
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from statemq.errors import UnsupportedServer
from statemq.store.wire import DENIED, ReplyError, Wire

_FCALL, _EVALSHA = b"$5\r\nFCALL\r\n$%d\r\n%b\r\n", b"$7\r\nEVALSHA\r\n$40\r\n%b\r\n"

READS = frozenset({"load", "rights"})
"""Scripts that write nothing."""

GROWS = frozenset({"append"})
"""Scripts that a full server must refuse; all others drain it, so they carry allow-oom."""


EFFECTS = "effects/"
"""Where those files lie that say what else a command's end changes, each by a check and a write."""

log = logging.getLogger("statemq.store")

_UNSEEN: set[str] = set()
"""Servers of which this was said."""


class Library(msgspec.Struct, frozen=True):
    """``source`` for FUNCTION LOAD, and the same script by script for SCRIPT LOAD."""

    name: str
    source: str
    scripts: dict[str, str]

    def function(self, script: str) -> str:
        return f"{script}_{self.name.rsplit('_', 1)[1]}"


def _flags(name: str) -> list[str]:
    return (["no-writes"] if name in READS else []) + ([] if name in GROWS else ["allow-oom"])


def sources(shared: bool = False) -> dict[str, str]:
    """The text of each script by its name; with ``shared``, of what they share, too: ``_words``, ``_ended`` and ``effects/…``."""
    lua = resources.files("statemq").joinpath("lua")
    files = {f.name[:-4]: f.read_text("utf-8") for f in lua.iterdir() if f.name.endswith(".lua")}
    if not shared:
        return {name: text for name, text in files.items() if not name.startswith("_")}
    return files | {f"{EFFECTS}{f.name[:-4]}": f.read_text("utf-8") for f in lua.joinpath("effects").iterdir() if f.name.endswith(".lua")}


@cache
def library() -> Library:
    """The library of the scripts as they are shipped."""
    return joined(sources(shared=True))


def effects(files: dict[str, str]) -> str:
    """The table of all effects, each under its file's name."""
    table = {name.removeprefix(EFFECTS): text for name, text in files.items() if name.startswith(EFFECTS)}
    return "local effects = {}\n" + "".join(f"effects.{name} = (function()\n{table[name]}end)()\n" for name in sorted(table))


def joined(files: dict[str, str]) -> Library:
    """A library of these scripts; the file's name is the function's."""
    shared = f"{files['_words']}\n{effects(files)}\n{files['_ended']}"
    files = {name: text for name, text in files.items() if not name.startswith(("_", EFFECTS))}
    body = shared + "".join(f"\nlocal function {name}(KEYS, ARGV)\n{files[name]}end\n" for name in sorted(files))
    mark = hashlib.sha256(body.encode()).hexdigest()[:12]
    name = f"statemq_{mark}"
    register = "".join(
        f"redis.register_function{{function_name='{s}_{mark}', callback={s}, flags={{{', '.join(repr(f) for f in _flags(s))}}}}}\n"
        for s in sorted(files)
    )
    scripts = {s: f"#!lua{' flags=' + ','.join(_flags(s)) if _flags(s) else ''}\n{shared}\n{files[s]}" for s in files}
    return Library(name=name, source=f"#!lua name={name}\n{body}{register}", scripts=scripts)


class Scripts:
    """How to call a script on one server: by function, or by hash of its text."""

    def __init__(self, *, refuse_eviction: bool = True) -> None:
        self._library = library()
        self._refuses_eviction = refuse_eviction
        self.by_hash = False
        self.denied: UnsupportedServer | None = None
        """Why this user may run none; who only reads needs none."""
        self._usable = False
        self._shas = {s: hashlib.sha1(body.encode()).hexdigest() for s, body in self._library.scripts.items()}  # noqa: S324 - Redis' own name
        self._names = {s: self._library.function(s) for s in self._library.scripts}

    async def greet(self, wire: Wire) -> None:
        """Loads what is missing; part of each new connection, so a wiped or new node never lacks it."""
        users, info = await wire.hello(("ACL", "USERS"), ("INFO", "memory"))
        for reply in (users, info):
            if isinstance(reply, OSError | EOFError):
                raise reply  # lost, not denied
        self.denied = None
        if self.by_hash:
            await self._load_scripts(wire, ReplyError("they were refused before"))  # calls by hash may wait to be sent again
        elif users != [b"default"]:
            await self._load_scripts(wire, ReplyError("the server has other users, who could change them"))
        else:
            await self._load_function(wire)
        self._usable = self.denied is None
        wire.reword(self.worded)
        if self._refuses_eviction:
            _refuse_eviction(wire, info)

    async def look(self, wire: Wire) -> None:
        """If the server has got other users since the connection was greeted, or other functions by this name, it is greeted anew."""
        if self.by_hash:
            return
        listed = await wire.call("FUNCTION", "LIST", "LIBRARYNAME", self._library.name, "WITHCODE")
        if await wire.call("ACL", "USERS") != [b"default"] or (listed and code_of(listed[0]) != self._library.source):
            wire.drop()

    async def _load_function(self, wire: Wire) -> None:
        """The library is there with this very text, or its scripts run by their hashes."""
        (listed,) = await wire.hello(("FUNCTION", "LIST", "LIBRARYNAME", self._library.name, "WITHCODE"))
        if isinstance(listed, OSError | EOFError):
            raise listed
        if isinstance(listed, ReplyError) or not listed:
            (loaded,) = await wire.hello(("FUNCTION", "LOAD", self._library.source))
            self.by_hash = False
            if isinstance(loaded, ReplyError) and "already exists" not in loaded.message:
                await self._load_scripts(wire, loaded)
            elif isinstance(loaded, OSError | EOFError):
                raise loaded
        elif code_of(listed[0]) != self._library.source:
            log.warning(
                "somebody has changed the function library %s at %s; its scripts are called by their hashes instead. "
                "Delete it (FUNCTION DELETE) and find out who may load functions",
                self._library.name,
                wire.address,
            )
            await self._load_scripts(wire, ReplyError("somebody has changed them"))

    async def _load_scripts(self, wire: Wire, why: ReplyError) -> None:
        if "unknown command" in why.message.lower():
            raise UnsupportedServer(_too_old(wire))
        if why.word in {"LOADING", "READONLY", "MASTERDOWN", "BUSY", "CLUSTERDOWN"}:
            raise why
        names = sorted(self._library.scripts)
        replies = await wire.hello(*(("SCRIPT", "LOAD", self._library.scripts[s]) for s in names))
        for reply in replies:
            if isinstance(reply, ReplyError):
                if "unknown command" in reply.message.lower():
                    raise UnsupportedServer(_too_old(wire))
                denied = UnsupportedServer(
                    f"the server at {wire.address} allows neither functions ({why}) nor scripts ({reply}); "
                    "statemq needs FUNCTION LOAD and FCALL, or SCRIPT LOAD and EVALSHA"
                )
                if self._usable or reply.word not in DENIED:  # scripts may wait to be sent again
                    raise denied
                self.denied = denied
                return
            if isinstance(reply, BaseException):
                raise reply
        self.by_hash = True

    def worded(self, packed: bytes) -> bytes:
        """A packed call of a script as this server takes it: one that was meant for another node, or for this one before its functions were
        lost or somebody else became its user, may be worded in the other way. What it does is the same."""
        count, _, rest = packed.partition(b"\r\n")
        for name in self._names:
            was, now = (_FCALL % self._function(name), _EVALSHA % self._shas[name].encode())
            if not self.by_hash:
                was, now = now, was
            if rest.startswith(was):
                return b"%b\r\n%b%b" % (count, now, rest[len(was) :])
        return packed

    def _function(self, name: str) -> tuple[int, bytes]:
        function = self._names[name].encode()
        return len(function), function

    def command(self, name: str) -> tuple[str, str]:
        return ("EVALSHA", self._shas[name]) if self.by_hash else ("FCALL", self._names[name])


def _too_old(wire: Wire) -> str:
    return f"the server at {wire.address} has no functions; statemq needs Redis 7.0 or Valkey 7.2 or newer"


def code_of(listed: Any) -> str:
    """The text in a row of FUNCTION LIST WITHCODE: names and values in turn."""
    row = dict(zip(listed[::2], listed[1::2], strict=False))
    return bytes(row.get(b"library_code", b"")).decode(errors="replace")


def _refuse_eviction(wire: Wire, info: object) -> None:
    """A server that evicts keys tears queues and states apart; INFO tells without CONFIG. Where INFO is denied it cannot be seen."""
    if not isinstance(info, bytes):
        if str(wire.address) not in _UNSEEN:
            _UNSEEN.add(str(wire.address))
            log.warning("%s does not tell its maxmemory-policy (INFO is denied): make sure that it is noeviction", wire.address)
        return
    found = re.search(rb"maxmemory_policy:(\S+)", info)
    if found and found[1] != b"noeviction":
        raise UnsupportedServer(
            f"the server at {wire.address} may evict keys (maxmemory-policy {found[1].decode()}), which would tear state apart; "
            "set maxmemory-policy to noeviction"
        )
