"""One partition's keys on a real server: kept, put back, and called by the shipped scripts, many times a second.

The server is this exploration's own, so that all of its keys are the partition's.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import hiredis
import msgspec

from statemq.keys import PartitionKeys
from statemq.server import EmbeddedServer
from statemq.store.commands import entry_order
from statemq.store.scripts import library
from tests.scope.model import KEYS, Call

SCOPE = """#!lua name=scope
local PERIOD_MS = 60000
local function look()
  local answer = {}
  for _, key in ipairs(redis.call('KEYS', '*')) do
    local kind = redis.call('TYPE', key).ok
    local held, more
    if kind == 'hash' then held = redis.call('HGETALL', key)
    elseif kind == 'list' then held = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'zset' then held = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    elseif kind == 'stream' then
      held = redis.call('XRANGE', key, '-', '+')
      more = redis.pcall('XPENDING', key, 'workers', '-', '+', 100)
      if more.err then more = {} end
    end
    for _, part in ipairs({ key, kind, held, more or {}, redis.call('DUMP', key) }) do answer[#answer + 1] = part end
  end
  return answer
end
-- Outcomes lie in the period of their minute: they are put back into the present one, however long ago they were looked at.
local function put(_, args)
  local all = redis.call('KEYS', '*')
  if #all > 0 then redis.call('DEL', unpack(all)) end
  local t = redis.call('TIME')
  local period = math.floor(t[1] * 1000 / PERIOD_MS)
  for i = 1, #args, 2 do
    local stem, back = string.match(args[i], '^(.*:outcomes:)~(%d)$')
    redis.call('RESTORE', stem and (stem .. (period - back)) or args[i], 0, args[i + 1])
  end
  return 'done'
end
redis.register_function('scope_look', look)
redis.register_function('scope_put', put)
"""

LUA = {f.name[:-4]: f.read_text() for f in resources.files("statemq").joinpath("lua").iterdir() if f.name.endswith(".lua")}


class Broken(NamedTuple):
    """A deliberate mistake in one script: ``old`` occurs in it exactly once."""

    script: str
    old: str
    new: str


def source(mistake: Broken | None = None) -> str:
    """The library's source as shipped, or with one mistake."""
    text = library().source
    if mistake is None:
        return text
    script = LUA[mistake.script]
    assert script.count(mistake.old) == 1, f"{mistake.script}.lua holds {script.count(mistake.old)} times, not once: {mistake.old}"
    assert text.count(script) == 1
    return text.replace(script, script.replace(mistake.old, mistake.new))


class State(NamedTuple):
    """Everything in Redis at one moment. ``held``: by short key, decoded; ``dumps`` put it back; ``entries``: where each id was queued."""

    held: dict[str, Any]
    dumps: tuple[bytes, ...]
    entries: dict[str, tuple[int, int]]
    text: str
    """Of all that decides what can happen next."""

    def hash(self, name: str) -> dict[str, str]:
        return self.held.get(name) or {}

    @property
    def accepted(self) -> dict[str, str]:
        return self.hash("accepted")

    @property
    def outcomes(self) -> dict[str, str]:
        return {id: json for k in ("outcomes:~0", "outcomes:~1") for id, json in self.hash(k).items()}

    @property
    def stream(self) -> list[tuple[str, dict[str, str]]]:
        return self.held["commands"][0] if "commands" in self.held else []

    @property
    def history(self) -> list[dict[str, str]]:
        return [fields for _, fields in self.held["history"][0]] if "history" in self.held else []

    def inbox(self, key: str) -> list[str]:
        return self.held.get(f"inbox:{key}") or []

    def zset(self, name: str) -> dict[str, float]:
        return self.held.get(name) or {}


class Box:
    """A connection to the server, with the scripts (or broken ones) loaded."""

    def __init__(self, server: EmbeddedServer, keys: PartitionKeys = KEYS, mistake: Broken | None = None) -> None:
        self.keys = keys
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        text = source(mistake)
        for answer in self.run([("FUNCTION", "FLUSH"), ("FUNCTION", "LOAD", text), ("FUNCTION", "LOAD", SCOPE), ("FLUSHDB",)]):
            if isinstance(answer, Exception):
                raise answer

    def close(self) -> None:
        self._socket.close()

    def run(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """All replies of a pipeline."""
        self._socket.sendall(b"".join(hiredis.pack_command(c) for c in commands))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is False:
                data = self._socket.recv(1 << 16)
                if not data:
                    raise EOFError("the server is gone")
                self._reader.feed(data)
            else:
                replies.append(reply)
        return replies

    def command(self, call: Call) -> tuple[Any, ...]:
        return ("FCALL", library().function(call.script), len(call.keys), *call.keys, *call.args)

    def tries(self, start: State, each: Sequence[tuple[Any, ...]]) -> list[tuple[Any, State]]:
        """Each command run on ``start`` for itself: its answer and what is then."""
        words = []
        for command in each:
            words += [("FCALL", "scope_put", 0, *start.dumps), command, ("FCALL", "scope_look", 0)]
        replies = self.run(words)
        for put in replies[::3]:
            if isinstance(put, Exception):
                raise put
        return [(replies[i + 1], self._state(replies[i + 2], start.entries)) for i in range(0, len(replies), 3)]

    def begin(self, commands: Sequence[tuple[Any, ...]]) -> State:
        """What these commands make of an empty server."""
        for answer in self.run([("FLUSHDB",), *commands]):
            if isinstance(answer, Exception):
                raise answer
        return self._state(self.run([("FCALL", "scope_look", 0)])[0], {})

    def _state(self, raw: list[Any], before: dict[str, tuple[int, int]]) -> State:
        held: dict[str, Any] = {}
        dumps: dict[str, bytes] = {}
        rows = sorted((raw[i].decode(), *raw[i + 1 : i + 5]) for i in range(0, len(raw), 5))
        periods = sorted((int(r[0].rsplit(":", 1)[1]) for r in rows if r[0].startswith(self.keys.outcomes_)), reverse=True)
        for name, kind, value, more, dump in rows:
            assert name.startswith(self.keys.tag + ":"), f"a key outside the partition: {name}"
            short = name[len(self.keys.tag) + 1 :]
            if name.startswith(self.keys.outcomes_):
                short = f"outcomes:~{periods.index(int(name.rsplit(':', 1)[1]))}"
            held[short] = _decoded(kind, value, more)
            dumps[f"{self.keys.tag}:{short}"] = dump
        entries = before
        for id, where in (held.get("accepted") or {}).items():
            if id not in entries and where[0].isdigit():
                entries = {**entries, id: entry_order(where)}
        flat = tuple(part for pair in dumps.items() for part in pair)
        return State(held, flat, entries, _text(held))


def _decoded(kind: bytes, value: Any, more: Any) -> Any:
    if kind == b"list":
        return [x.decode() for x in value]
    if kind == b"stream":
        rows = [(e.decode(), {f[i].decode(): f[i + 1].decode() for i in range(0, len(f), 2)}) for e, f in value]
        return rows, [(p[0].decode(), p[1].decode(), p[3]) for p in more]
    pairs = {value[i].decode(): value[i + 1].decode() for i in range(0, len(value), 2)}
    return {k: float(v) for k, v in pairs.items()} if kind == b"zset" else pairs


_AT = re.compile(r',"at":\d+')


def _text(held: dict[str, Any]) -> str:
    """Without what only tells when, or who: two states of one text go on alike."""
    parts = []
    for name, value in held.items():
        kind = name.split(":", 1)[0]
        if kind == "lease":
            value = [value.get(f) for f in ("token", "owner", "call", "dead")] + [value.get("deadline", "0") == "0"]
        elif kind == "instance":
            value = [value.get(f) for f in ("state", "version", "data", "paused")]
        elif kind == "commands":
            value = [(e, f.get("id"), f.get("transition")) for e, f in value[0]], value[1]
        elif kind == "history":
            value = [(f["id"], f["version"], f["outcome"]) for _, f in value[0]]
        elif kind in ("ready", "in"):
            value = sorted(value)
        elif kind == "timers":
            value = sorted(value) if name == "timers:data" else sorted((id, due == 0) for id, due in value.items())
        elif kind == "outcomes":
            value = sorted((id, _AT.sub("", json)) for id, json in value.items())
        elif kind == "inbox":
            value = [e.split(" ", 2)[:2] for e in value]
        elif isinstance(value, dict):
            value = sorted(value.items())
        parts.append(f"{name}={value}")
    return "\n".join(parts)


def decode_outcome(json: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(json)
    return found
