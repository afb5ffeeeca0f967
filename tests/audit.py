"""The shipped scripts, wrapped so that they leave an audit: rows for ``statemq.testing``, and counts of what was recognised.

Each script's text stays as it is shipped; what is wrapped around it runs in the same call, so its rows stand and fall with the script's
own writes. Nothing of this is in production: a process that shall leave an audit calls ``install`` before it connects
(``python -m tests.audit worker …`` is ``statemq worker …`` so installed), beside processes that do not.

``T:audit`` is a stream whose entry ids count the rows of its partition (pseq); ``T:audit:counts`` is a hash.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from typing import Any

from statemq.store import fence, operate, scripts
from statemq.testing.evidence import Acquire, Commit, Line, Record, Slept

BREAK = "STATEMQ_TEST_BREAK"
"""Names a broken engine: ``["append", "old text", "new text"]``."""

HISTORY_CAP = 500
"""Of an audited partition: so short that a soak comes to it."""

WORDS = """
-- T of a lease's or stream's name
local function audit_of(name, suffix) return string.match(name, '^(.*}:)') .. 'audit' .. suffix end
local function count(name, what) redis.call('HINCRBY', audit_of(name, ':counts'), what, 1) end
local function row(lease, kind, ...)
  local name = audit_of(lease, '')
  redis.call('XADD', name, redis.call('XLEN', name) + 1 .. '-0', 'kind', kind, 'at_ms', clock(), ...)
end
local shipped_fence = fence
local function fence(lease, token, number)
  local word, mark = shipped_fence(lease, token, number)
  if word then count(lease, word) end
  return word, mark
end
"""

COMMIT = """
local lease, token = KEYS[1], ARGV[1]
local fresh = shipped_fence(lease, token, ARGV[2]) == nil
local answer = shipped(KEYS, ARGV)
if answer[1] ~= 'done' then return answer end
local ids = 6 + tonumber(ARGV[5])
local n = tonumber(ARGV[ids])
for c = 1, n do
  local o, word = ids + n + (c - 1) * WIDTH, answer[c + 1] or 'applied'
  if word ~= 'applied' then count(lease, word) end
  if fresh and word == 'applied' then
    local made = ARGV[o + NEXT]
    row(lease, 'commit', 'key', ARGV[o + KEY], 'id', ARGV[ids + c], 'entry', ARGV[o + ENTRY], 'token', token, 'worker', ARGV[3],
      'version', made == '' and '0' or made, 'outcome', ARGV[o + OUTCOME], 'writes', made == '' and '' or '1')
  end
end
return answer
"""

ACQUIRE = """
local lease = KEYS[1]
local held = redis.call('HMGET', lease, 'token', 'owner', 'deadline')
local answer = shipped(KEYS, ARGV)
if answer[1] ~= 'done' or answer[2] == held[1] then return answer end
local from = held[1] and held[1] ~= '' and held[2] ~= ARGV[1] and held[2] or ''
-- 'died': before its lease was over, by Redis' clock or the caller's
local lasts = tonumber(held[3] or '0') > clock() and held[3] ~= ARGV[PASSED]
local how = from ~= '' and (answer[4] == from and lasts and 'died' or 'silent') or ''
if from ~= '' then count(lease, 'taken ' .. how) end
row(lease, 'acquire', 'token', answer[2], 'worker', ARGV[1], 'taken_from', from, 'how', how)
return answer
"""

RECORD = """
local lease, token, n, missing = KEYS[1], ARGV[1], tonumber(ARGV[3]), {}
local fresh = shipped_fence(lease, token, ARGV[2]) == nil
for r = 1, n do
  -- an engine's field begins with an @, and so do no step's and no sleep's
  local field = ARGV[3 + n + (r - 1) * WIDTH + FIELD]
  missing[r] = fresh and string.sub(field, 1, 1) ~= '@' and redis.call('HEXISTS', KEYS[2 + r], field) == 0
end
local answer = shipped(KEYS, ARGV)
for r = 1, n do
  local field = ARGV[3 + n + (r - 1) * WIDTH + FIELD]
  if missing[r] and answer[r + 1] == '' then
    if string.match(field, '^sleep@') then
      row(lease, 'sleep', 'id', ARGV[3 + r], 'field', field)
    elseif not string.find(field, '@', 1, true) then
      row(lease, 'record', 'id', ARGV[3 + r], 'step', field, 'token', token)
    end
  end
  if answer[1] == 'done' and answer[r + 1] and answer[r + 1] ~= '' then count(lease, 'step stood') end
end
return answer
"""

APPEND = """
local answers = shipped(KEYS, ARGV)
if answers == 'accepted' then
  redis.call('HINCRBY', audit_of(KEYS[3], ':counts'), 'append accepted', ARGV[7])
elseif type(answers) == 'table' and not answers.err then
  for _, answer in ipairs(answers) do count(KEYS[3], 'append ' .. string.match(answer, '^%S+')) end
end
return answers
"""

AROUND = {
    "commit": (COMMIT, r"ARGV token number worker .* states \[state …\] n, n ids, then n times:\n--\s+(\w+(?: \w+)*)\n"),
    "acquire": (
        ACQUIRE,
        r"KEYS lease .*\n-- ARGV (worker n believed_token lease_ms incarnation alive_channel reinit news_channel partition seen)\S*"
        r"( process)\n--\s+(passed)\([^\n]*\n-- RETURNS done token last_entry dead ",
    ),
    "record": (RECORD, r"ARGV token number n, n ids, then n times: (\w+(?: \w+)*)"),
    "append": (APPEND, r"KEYS commands accepted (lease) [\s\S]* reply n, n ids,[\s\S]*-- RETURNS 'lost', 'accepted' if all are, or a list"),
}
"""What goes around a script, and what it takes its header to say of arguments and answer: the header is a script's contract."""


def _around(script: str, shipped: str) -> str:
    """The audit of a script; its words in capitals become the places that the header gives them."""
    lua, contract = AROUND[script]
    found = re.search(contract, shipped)
    assert found, f"lua/{script}.lua lays out its arguments in another way now: follow it in {__name__}"
    names = " ".join(found.groups()).split()
    places = {name.upper(): str(at + 1) for at, name in enumerate(names)} | {"WIDTH": str(len(names))}
    return re.sub(r"(?<=WIDTH \+ )[A-Z]+|WIDTH|(?<=\[o \+ )[A-Z]+|(?<=ARGV\[)[A-Z]+", lambda m: places[m[0]], lua)


def audited(files: dict[str, str]) -> dict[str, str]:
    """The scripts, each that is audited inside what leaves its rows."""
    wrapped = {name: f"local function shipped(KEYS, ARGV)\n{files[name]}end\n{_around(name, files[name])}" for name in AROUND}
    return {**files, "_words": files["_words"] + WORDS, **wrapped}


def install() -> None:
    """All connections that this process makes from now on call audited scripts, of a broken engine if ``BREAK`` names one."""
    files = scripts.sources(shared=True)
    if broken := os.environ.get(BREAK):
        script, old, new = json.loads(broken)
        assert files[script].count(old) == 1, f"lua/{script}.lua has {files[script].count(old)} times what is to be broken: {old}"
        files[script] = files[script].replace(old, new)
    fence.HISTORY_CAP = operate.HISTORY_CAP = HISTORY_CAP
    made = scripts.joined(audited(files))
    scripts.library = lambda: made  # type: ignore[assignment]


def rows(redis: Any, namespace: str, machine: str, partitions: int) -> list[Line]:
    """The audit. ``redis`` decodes replies."""
    kinds: dict[str, Any] = {"commit": Commit, "acquire": Acquire, "record": Record, "sleep": Slept}
    found: list[Line] = []
    for partition in range(partitions):
        for entry, fields in redis.xrange(f"{namespace}:{{{machine}:{partition}}}:audit"):
            kind, at_ms = kinds[fields.pop("kind")], int(fields.pop("at_ms"))
            if kind is Commit:
                fields |= {"version": int(fields["version"]), "writes": bool(fields["writes"])}
            found.append(kind(partition, int(entry.partition("-")[0]), at_ms, **fields))
    return found


def counts(redis: Any, namespace: str, machine: str, partitions: int) -> Counter[str]:
    """What the scripts recognised: fenced, seen, rewound; gone, conflict; append known, ended, attached, …"""
    total = Counter[str]()
    for partition in range(partitions):
        found = redis.hgetall(f"{namespace}:{{{machine}:{partition}}}:audit:counts")
        total.update({what: int(n) for what, n in found.items()})
    return total


if __name__ == "__main__":
    from statemq.cli.app import main

    install()
    sys.exit(main())
