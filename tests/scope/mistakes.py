"""Mistakes in the scripts, each with the small scope that finds it: the proof that the exploration can fail."""

from __future__ import annotations

from typing import NamedTuple

from tests.scope.explore import Faults, Plan
from tests.scope.store import Broken


class Mistake(NamedTuple):
    """``rule`` and ``what``: what it breaks; the scope's commands, faults, and how many commands lie in the stream from the beginning."""

    rule: str
    what: str
    broken: Broken
    plan: Plan
    faults: Faults
    queued: int


ADD: Plan = (("add", "a"),)
ADD_ADD: Plan = (("add", "a"), ("add", "a"))
ADD_PAY: Plan = (("add", "a"), ("pay", "a"))
PAY_ADD: Plan = (("pay", "a"), ("add", "a"))
PAY_ADD_ADD: Plan = (("pay", "a"), ("add", "a"), ("add", "a"))
NAP_ADD_ADD: Plan = (("nap", "a"), ("add", "a"), ("add", "a"))

_TOKEN = "if held[1] ~= token then return 'fenced' end"
_EPOCH = "not held[1] or (tonumber(string.match(held[1], '^%d+')) or 0) > tonumber(string.match(token, '^%d+'))"
_ENTRIES = "for c = 1, n do redis.call('XDEL', commands, ARGV[base + (c - 1) * width + 1]) end "
_CHECKS = "-- keys that all commands share"


MISTAKES = {
    "no-token-compare": Mistake(
        "P1", "any token passes the fence",
        Broken("_words", _TOKEN, ""), PAY_ADD, Faults(lapses=1), 2,
    ),
    "token-without-worker": Mistake(
        "P1", "a token is its epoch only",
        Broken("acquire", "token = text(epoch) .. tail", "token = text(epoch)"), ADD_ADD, Faults(lapses=1, rewinds=1), 2,
    ),
    "epoch-at-least": Mistake(
        "P1", "the fence compares the epoch, by >=",
        Broken("_words", _TOKEN, f"if {_EPOCH} then return 'fenced' end"), ADD_ADD, Faults(lapses=1, rewinds=1), 2,
    ),
    "renewal-without-token": Mistake(
        "P1", "anybody renews a lease",
        Broken("renew", "held[1] ~= ARGV[2 * i]", "false"), ADD_ADD, Faults(lapses=1), 2,
    ),
    "release-without-token": Mistake(
        "P1", "anybody releases a partition",
        Broken("release", "if redis.call('HGET', lease, 'token') ~= token then return 'fenced' end", ""),
        ADD_ADD, Faults(releases=1, cuts=1, lapses=1), 2,
    ),
    "resend-applied-again": Mistake(
        "P2", "a call that was seen is applied again",
        Broken("_words", "return 'seen'", "return nil"), PAY_ADD, Faults(cuts=1), 2,
    ),
    "last-number-applied-again": Mistake(
        "P2", "a resend of the last call is applied again",
        Broken("_words", "mine <= last", "mine < last"), PAY_ADD, Faults(cuts=1), 2,
    ),
    "higher-number-applied": Mistake(
        "P2", "a call is applied though one before it is missing",
        Broken("_words", "mine > last + 1", "false"), ADD_PAY, Faults(rewinds=1), 2,
    ),
    "numbers-go-on": Mistake(
        "P2", "a new owner's calls do not count from 1: its first ones pass for resends",
        Broken("acquire", "'call', '0',", "'call', redis.call('HGET', lease, 'call') or '0',"),
        PAY_ADD, Faults(lapses=1, parks=1), 2,
    ),
    "start-unfenced": Mistake(
        "P3", "a start is not fenced: claims are anybody's",
        Broken("start", "if fault == 'fenced' or fault", "if fault"), PAY_ADD, Faults(lapses=1), 2,
    ),
    "start-of-what-is-gone": Mistake(
        "P3", "a start does not say that its command is gone",
        Broken("start", "if where[c] == entry then", "if true then"), PAY_ADD, Faults(cancels=1), 2,
    ),
    "acquire-without-compare": Mistake(
        "P4", "acquire does not look at the token it believes dead",
        Broken("acquire", "if token ~= believed then", "if false then"),
        ADD_ADD, Faults(cuts=1, lapses=1), 2,
    ),
    "acquire-from-the-living": Mistake(
        "P4", "acquire takes what a living owner holds",
        Broken("acquire", "and deadline > now then", "and false then"), ADD_ADD, Faults(lapses=1, crashes=1), 2,
    ),
    "park-behind-the-younger": Mistake(
        "P8", "park puts what is older behind what is younger",
        Broken("park", "if tail and older((element(push[1])), (element(tail))) then", "if false then"),
        PAY_ADD_ADD, Faults(parks=2, lapses=1), 3,
    ),
    "parked-entry-stays": Mistake(
        "P8", "a parked command stays in the stream as well",
        Broken("park", "redis.call('XDEL', commands, unpack(drop))", ""), PAY_ADD, Faults(parks=1), 2,
    ),
    "postpone-to-the-right": Mistake(
        "P8", "postpone puts the read-ahead behind what was parked",
        Broken("postpone", "'LPUSH'", "'RPUSH'"), NAP_ADD_ADD, Faults(parks=1), 3,
    ),
    "postpone-without-read-ahead": Mistake(
        "P8", "postpone leaves what was read ahead in the stream",
        Broken("postpone", "for b = behind, 1, -1 do", "for b = behind, 2, -1 do"), NAP_ADD_ADD, Faults(), 3,
    ),
    "wake-forgets-the-key": Mistake(
        "P9", "a due wake-up does not make its key ready",
        Broken("wake", "redis.call('ZADD', ready, 'NX', now, p[3])", ""), NAP_ADD_ADD, Faults(), 3,
    ),
    "record-unfenced": Mistake(
        "P15", "a record is not fenced",
        Broken("record", "if fault == 'fenced' or fault", "if fault"), PAY_ADD, Faults(lapses=1), 2,
    ),
    "record-overwrites": Mistake(
        "P15", "a late record overwrites the one that stands",
        Broken("record", "redis.call('HSETNX', steps, field, value) == 0", "redis.call('HSET', steps, field, value) == -1"),
        PAY_ADD, Faults(stragglers=1), 2,
    ),
    "record-answers-late": Mistake(
        "P15", "a record does not answer what stands",
        Broken("record", "(stands == value or not stands) and '' or stands", "''"),
        PAY_ADD, Faults(stragglers=1), 2,
    ),
    "no-version-compare": Mistake(
        "P19", "a commit does not compare the version",
        Broken("commit", "if stored ~= version then", "if false then"), ADD_ADD, Faults(cancels=1), 0,
    ),
    "no-look-at-accepted": Mistake(
        "P19", "a commit does not look whether its command is still there",
        Broken("commit", "if not where[c] or taken[id] or", "if false and"), ADD_ADD, Faults(cancels=1), 0,
    ),
    "entries-go-before-the-checks": Mistake(
        "P19", "queue entries go before the commit is checked",
        Broken("commit", _CHECKS, f"{_ENTRIES}{_CHECKS}"),
        ADD_ADD, Faults(cancels=1), 0,
    ),
    "resent-commit-was-applied": Mistake(
        "P19", "a resent commit is said to have been applied",
        Broken("commit", "where[c] and 'conflict' or (ours and 'applied' or 'gone')", "'applied'"),
        ADD, Faults(cuts=1, cancels=1), 0,
    ),
    "outcome-outside-the-script": Mistake(
        "P19", "the outcome is not written by the script that ends the command",
        Broken("commit", "redis.call('HSET', outcomes_key, unpack(kept))", ""), ADD_ADD, Faults(), 2,
    ),
    "committed-entry-stays": Mistake(
        "P19", "a committed command stays queued",
        Broken("commit", "redis.call('XDEL', commands, unpack(entries))", ""), ADD_ADD, Faults(), 2,
    ),
    "committed-journal-stays": Mistake(
        "P19", "a committed command's journal stays",
        Broken("commit", "redis.call('UNLINK', unpack(journals))", ""), PAY_ADD, Faults(), 2,
    ),
    "no-look-at-what-waits": Mistake(
        "P26", "append does not look at what waits: dedupe off",
        Broken("append", "elseif known[c] or here[id] then", "elseif false then"), ADD_ADD, Faults(cuts=1), 0,
    ),
    "no-look-at-what-ended": Mistake(
        "P26", "append does not look at what has ended: dedupe off",
        Broken("append", "local outcome = ended[c] or ended_before[c]", "local outcome = nil"), ADD_ADD, Faults(cuts=1), 0,
    ),
    "cancelled-entry-stays": Mistake(
        "P28", "a cancelled command stays in the stream",
        Broken("cancel", "redis.call('XDEL', commands, where)", ""), ADD_ADD, Faults(cancels=1), 2,
    ),
    "running-command-cancelled": Mistake(
        "P28", "a command with a journal is ended by who cancels it, not by its owner",
        Broken("cancel", "if begun then", "if false then"), PAY_ADD, Faults(cancels=1), 2,
    ),
}  # fmt: skip
