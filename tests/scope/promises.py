"""What must hold in every state, and over every call. Each broken promise is one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from statemq.store.commit import words
from tests.scope.model import KEYS, Call, Worker, after, state_at
from tests.scope.store import State, decode_outcome

NUMBERED = {"start", "record", "park", "postpone", "wake", "commit", "drop", "skip", "adopt"}
FENCED = NUMBERED | {"renew", "release"}


def of_state(s: State) -> Iterator[str]:
    """Stream, inboxes, T:accepted, outcomes, history, instances and indexes say the same."""
    accepted, outcomes = s.accepted, s.outcomes
    lies: dict[str, str] = {}
    for entry, fields in s.stream:
        if fields.get("transition") == "@look":
            continue
        if fields["id"] in lies:
            yield f"{fields['id']} is twice in the stream"
        lies[fields["id"]] = entry
    for name in s.held:
        if name.startswith("inbox:"):
            key = name.removeprefix("inbox:")
            yield from _inbox(s, key)
            for element in s.inbox(key):
                entry, id = element.split(" ", 2)[:2]
                if id in accepted:
                    if id in lies:
                        yield f"{id} lies in two places"
                    lies[id] = f"@{entry} {key}"
    for id, where in accepted.items():
        if not id.startswith("@look:") and lies.get(id) != where:
            yield f"accepted says {id} is at {where}; it is at {lies.get(id)}"
        if id in outcomes:
            yield f"{id} is accepted and has an outcome"
    for id in lies:
        if id not in accepted:
            yield f"{id} is queued and not accepted"
    yield from _ended(s)
    for name in s.held:
        if name.startswith("steps:") and name.removeprefix("steps:") not in accepted:
            yield f"the journal {name} has no command"
    for id in s.zset("timers"):
        if id not in accepted:
            yield f"the timer of {id} has no command"
    if sorted(s.zset("timers")) != sorted(s.hash("timers:data")):
        yield "timers and their data differ"


def _inbox(s: State, key: str) -> Iterator[str]:
    orders = [tuple(map(int, element.split(" ", 1)[0].split("-"))) for element in s.inbox(key)]
    if orders != sorted(set(orders)):
        yield f"the inbox of {key} is not in entry order"
    live = [element.split(" ", 2)[1] for element in s.inbox(key) if element.split(" ", 2)[1] in s.accepted]
    if live and key not in s.zset("ready") and live[0] not in s.zset("timers"):
        yield f"nobody will ever wake the inbox of {key}"


def _ended(s: State) -> Iterator[str]:
    rows = s.history
    if sorted(row["id"] for row in rows) != sorted(s.outcomes):
        yield f"the history has {[row['id'] for row in rows]}, the outcomes are {sorted(s.outcomes)}"
    data: dict[str, str] = {}
    version: dict[str, int] = {}
    last: dict[str, tuple[int, int]] = {}
    for row in rows:
        id, key = row["id"], row["key"]
        told = decode_outcome(s.outcomes[id]) if id in s.outcomes else {}
        if row["outcome"] != told.get("outcome", row["outcome"]):
            yield f"{id} is {row['outcome']} in the history and {told['outcome']} as an outcome"
        if row["outcome"] != "completed":
            continue
        if s.entries[id] <= last.get(key, (0, 0)):
            yield f"{id} ran after a younger command of {key}"
        last[key] = s.entries[id]
        version[key] = version.get(key, 0) + 1
        if row["version"] != str(version[key]):
            yield f"{id} made version {row['version']}, not {version[key]}"
        result = str(told.get("result", ""))
        value = result.removeprefix(data.get(key, "")).removeprefix(id).removesuffix(";")
        data[key] = data.get(key, "") + after(id, value)
        if result != data[key] or told.get("version") != version[key]:
            yield f"{id} answered {result} at {told.get('version')}, the model says {data[key]} at {version[key]}"
    for key in {*version, *(name.removeprefix("instance:") for name in s.held if name.startswith("instance:"))}:
        row = s.hash(f"instance:{key}")
        if (row.get("version"), row.get("data")) != (str(version.get(key, 0)), data.get(key, "")):
            yield f"{key} is {row.get('data')} at version {row.get('version')}, the history says {data.get(key)} at {version.get(key)}"
        for state in ("ON", "OFF"):
            if (key in s.zset(f"in:{state}")) != (state == state_at(version.get(key, 0))):
                yield f"the index in:{state} is wrong about {key}, which is at version {version.get(key, 0)}"


def of_call(before: State, call: Call, answer: Any, s: State) -> Iterator[str]:
    """One script call: what it changed, and whether its answer is true."""
    if isinstance(answer, Exception):
        yield f"{call.script} raised: {answer}"
        return
    lease = before.hash("lease")
    if call.script in FENCED:
        number = call.number if call.script in NUMBERED else None
        current = call.token == lease.get("token")
        if not (current and (number is None or number == int(lease["call"]) + 1)) and before.held != s.held:
            yield f"{call.script} {number} of {call.token} changed something; the lease says {lease.get('token')}, {lease.get('call')}"
        word = answer[0] if isinstance(answer, list) else answer
        if not current and word != b"fenced":
            yield f"{call.script} of {call.token} was not fenced: {word}"
        if current and number is not None and number > int(lease["call"]) + 1 and word != b"rewound":
            yield f"{call.script} {number} came after {lease['call']} and was not refused: {word}"
        if call.script == "renew" and current and (call.args[2] > int(lease["call"])) != (word == b"rewound"):
            yield f"a renewal said {word} where {call.args[2]} calls were answered and the store has {lease['call']}"
        if word in (b"fenced", b"rewound"):
            return
    elif call.script == "acquire" and answer[0] == b"done":
        repeated = lease.get("token", "").endswith(f".{call.args[0]}.{call.args[1]}")
        free = not lease.get("token") or lease["deadline"] == "0" or lease["owner"] == call.args[0]
        if not repeated and (lease.get("token", "") != call.args[2] or not free):
            yield f"{call.args[0]} acquired a partition that {lease.get('owner')} holds, believing in {call.args[2]!r}"
        if answer[1].decode() != s.hash("lease").get("token"):
            yield f"{call.args[0]} was told the token {answer[1]}, the lease has another"
    elif call.script == "append":
        id = call.then[0]
        known = id in before.accepted or id in before.outcomes
        if known == answer[0].startswith(b"accepted"):
            yield f"append of {id}, {'known' if known else 'unknown'} before, answered {answer[0]}"
    if call.script == "commit" and call.then:
        for end, word in zip(call.then[1], words(answer, len(call.then[1])), strict=True):
            id = end.command.id
            told = decode_outcome(s.outcomes[id])["outcome"] if id in s.outcomes else "accepted" if id in s.accepted else "nowhere"
            result = end.data + after(id, end.value)
            ours = told == end.word and (told != "completed" or decode_outcome(s.outcomes[id])["result"] == result)
            if (word == "applied") != ours or (word == "conflict") != (told == "accepted"):
                yield f"commit said {word} of {id}, which is {told}"
            stands = before.hash(f"steps:{id}").get("pay")
            if end.command.kind == "pay" and word == "applied" and id not in before.outcomes and end.value not in ("", stands):
                yield f"{id} was committed with {end.value}; its journal says {stands}"
    if call.script == "start":
        claims = [call.args[4 + 5 * c : 9 + 5 * c] for c in range(call.args[3])]
        places = [entry if lies == "s" else f"@{entry} {key}" for lies, entry, _, key, _ in claims]
        gone = [c + 1 for c, (_, _, id, _, _) in enumerate(claims) if before.accepted.get(id) != places[c]]
        if answer[1:] != gone:
            yield f"start said that {answer[1:]} are gone; it is {gone}"
    if call.script == "record" and len(answer) > 1 and answer[1] is not None:
        id, field, value = call.args[3], call.args[4], call.args[5].decode()
        stands = s.hash(f"steps:{id}").get(field)
        if (answer[1].decode() or value) != stands:
            yield f"record said {answer[1].decode() or value} of {id}'s {field}; {stands} stands"


def over_time(before: State, s: State) -> Iterator[str]:
    """Nothing that was accepted is lost, no record is overwritten, what ended stays ended."""
    for id in {*before.accepted, *before.outcomes}:
        if id not in s.accepted and id not in s.outcomes and not id.startswith("@look:"):
            yield f"{id} is lost"
    for id, json in before.outcomes.items():
        if s.outcomes.get(id) != json:
            yield f"the outcome of {id} changed"
    for name, fields in before.held.items():
        if name.startswith("steps:"):
            now = s.held.get(name)
            if now is None and name.removeprefix("steps:") in s.accepted:
                yield f"the journal {name} is gone before its command"
            for field, value in fields.items():
                if now is not None and not field.startswith("@") and now.get(field) != value:
                    yield f"the record {field} of {name} was {value} and is {now.get(field)}"


def of_workers(workers: Sequence[Worker]) -> Iterator[str]:
    """P1: no token is given out twice."""
    tokens = [w.token for w in workers if w.token]
    if len(set(tokens)) != len(tokens):
        yield f"two workers have the token {tokens[0]}"


def of_effect(s: State, id: str, token: str) -> Iterator[str]:
    """I4: who owns the partition does not run a step that is recorded."""
    stands = s.hash(f"steps:{id}").get("pay")
    if stands is not None and s.hash("lease").get("token") == token:
        yield f"the step of {id} runs again; its record {stands} stands"


def of_end(s: State, ids: list[str]) -> Iterator[str]:
    """When nothing is left to do: everything has ended, and nothing of it is left."""
    left = sorted(name for name in s.held if name.split(":", 1)[0] in ("accepted", "inbox", "ready", "timers", "steps"))
    if left or s.stream or ("commands" in s.held and s.held["commands"][1]):
        yield f"nobody does anything any more, and there are left: {left} {s.stream} {s.held['commands'][1]}"
    if missing := [id for id in ids if id not in s.outcomes]:
        yield f"{missing} have no outcome (of {KEYS.tag})"
