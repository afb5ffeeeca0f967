"""Broken engines: one line of one script changed, each a promise less. They exist in test processes only (``bin/chaos --mutant NAME``).

A soak of the fault that is named beside it must find each; one that lives on is a fault that is missing.
"""

from __future__ import annotations

import msgspec


class Mutant(msgspec.Struct, frozen=True):
    """``old`` in the script becomes ``new``. ``rule``: what it breaks; ``fault``: what brings it to light."""

    rule: str
    script: str
    old: str
    new: str
    fault: str
    found: bool = True
    """Whether a soak of half a minute finds it. The others need an interleaving of their own: a second rule stands behind the first."""

    def applied(self, sources: dict[str, str]) -> dict[str, str]:
        text = sources[self.script]
        assert text.count(self.old) == 1, f"lua/{self.script}.lua has {text.count(self.old)} times what this mutant changes: {self.old}"
        return {**sources, self.script: text.replace(self.old, self.new)}


MUTANTS: dict[str, Mutant] = {
    "append_twice": Mutant("P26", "append", "elseif known[c] or here[id] then", "elseif here[id] then", "drop k-th reply"),
    "any_command": Mutant(
        "P19",
        "commit",
        "if taken[ids[c]] or not where[c] or where[c] ~= (from_inbox and '@' .. entry .. ' ' .. key or entry) then",
        "if false then",
        "CLIENT KILL normal",
    ),
    "forgets_steps": Mutant("I4", "record", "redis.call('HSETNX', steps, field, value) == 0", "false", "kill -9 worker"),
    "journal_stays": Mutant("I8", "commit", "if #journals > 0 then redis.call('UNLINK', unpack(journals)) end", "", "delay"),
    "entry_stays": Mutant("I3", "commit", "redis.call('XDEL', commands, unpack(entries))", "", "SIGTERM worker"),
    "lost_outcome": Mutant(
        "I6",
        "commit",
        "redis.call('HSET', outcomes_key, unpack(kept))",
        "redis.call('HSET', outcomes_key, 'x', 'y')",
        "CLIENT KILL pubsub",
    ),
    "no_token": Mutant("P1", "_words", "if held[1] ~= token then return 'fenced' end", "", "SIGSTOP worker", found=False),
    "resend_applies": Mutant("P2", "_words", "if mine <= last then return 'seen' end", "", "drop k-th reply", found=False),
    "no_rewind": Mutant("P2", "_words", "if mine > last + 1 then return 'rewound' end", "", "torn file", found=False),
    "any_version": Mutant("P19", "commit", "if stored ~= version then", "if false then", "kill -9 worker", found=False),
    "record_again": Mutant(
        "P15",
        "record",
        "redis.call('HSETNX', steps, field, value) == 0",
        "not redis.call('HSET', steps, field, value)",
        "black hole",
        found=False,
    ),
}
