"""The broken engines: each breaks one rule by one change of text, and names the cheapest thing that must notice.

Those that only break a script and are found by exploring a small scope are listed in tests/scope/mistakes.py; both lists are run by
``bin/mutants``. ``old`` occurs in its file exactly once: a test holds that, so that a mutant cannot rot.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.scope.mistakes import MISTAKES
from tests.scope.store import Broken

RACES = "tests/integration/races"


class Mutant(msgspec.Struct, frozen=True):
    """``file`` is under statemq/; ``test`` fails when ``old`` is ``new`` there. Without one, the mutant is a mistake that a scope finds."""

    rule: str
    what: str
    file: str
    old: str
    new: str
    test: str = ""

    def text(self, package: Path) -> str:
        """The file with the mistake in it."""
        shipped = (package / self.file).read_text()
        found = shipped.count(self.old)
        if found != 1:
            raise LookupError(f"{self.file} holds {found} times, not once: {self.old}")
        return shipped.replace(self.old, self.new)


def _races(test: str) -> str:
    return f"{RACES}/{test}"


_BUILD = "spec.build(c.key, snap.state, snap.version, snap.data)"

MUTANTS = {
    # -- worker and store ----------------------------------------------------------------------------
    "resent-in-another-order": Mutant(
        "P2", "after a reconnect the unanswered calls go in another order",
        "store/wire.py", "[c.packed for c in self._unanswered]", "[c.packed for c in reversed(self._unanswered)]",
        _races("test_p02_numbered_calls.py::test_what_was_sent_after_the_lost_answer_keeps_its_place"),
    ),
    "not-resent": Mutant(
        "P2", "what was unanswered when the connection was lost is not sent again",
        "store/wire.py", "[c.packed for c in self._unanswered]", "[]",
        _races("test_p02_numbered_calls.py::test_a_call_whose_answer_was_lost_is_applied_once"),
    ),
    "rewound-not-heard": Mutant(
        "P2", "the owner goes on, with its cache, though the store was set back",
        "store/fence.py", 'Rewound() if word == b"rewound" else None', "None",
        _races("test_p02_numbered_calls.py::test_a_worker_whose_store_was_set_back_runs_again_from_there_in_order"),
    ),
    "idle-owner-does-not-ask": Mutant(
        "P2", "an owner with nothing to do never learns that its store was set back",
        "store/fence.py", "return number if applied else 0", "return 0",
        _races("test_p02_numbered_calls.py::test_an_idle_owner_notices_that_its_store_was_set_back"),
    ),
    "stale-not-heard": Mutant(
        "P1", "a fenced owner drops neither its cache nor what it runs",
        "store/fence.py", "return Fenced()", "return None",
        _races("test_p01_token.py::test_a_fenced_answer_ends_the_tenure"),
    ),
    "no-start": Mutant(
        "P3, P14", "a command is not claimed before its code runs: crashes are counted too late",
        "worker/lane.py", "return Job(self, commands, [", "return Job(self, commands, [] and [",
        _races("test_p03_reads_and_starts.py::test_no_step_runs_before_its_start_is_answered"),
    ),
    "step-before-its-start-is-answered": Mutant(
        "P3", "a step touches the world before the start of its command is answered",
        "worker/batches.py", "call.add_done_callback(functools.partial(self._claimed, jobs, commands))",
        "done = self._loop.create_future(); done.set_result([b'done']); self._claimed(jobs, commands, done)",
        _races("test_p03_reads_and_starts.py::test_no_step_runs_before_its_start_is_answered"),
    ),
    "read-reply-taken-twice": Mutant(
        "P3", "what two reads brought is taken twice",
        "worker/partition.py", "entries = [e for e in entries if entry_order(e[0].decode()) > taken]", "entries = list(entries)",
        _races("test_h_reading.py::test_what_was_taken_is_not_taken_again"),
    ),
    "silence-is-death": Mutant(
        "P5", "a peer counts as dead though nobody saw it subscribed before",
        "lua/acquire.lua", "(silent and (seen == 'silent' or seen == 'ended'))", "silent",
        _races("test_p04_acquire.py::test_silence_counts_only_for_who_was_seen_to_fall_silent"),
    ),
    "one-life-sign": Mutant(
        "P5", "a worker gives its life sign over one connection only",
        "worker/life.py", "SIGNS = 2", "SIGNS = 1",
        _races("test_p04_acquire.py::test_one_cut_connection_is_no_silence"),
    ),
    "cut-is-death": Mutant(
        "P5", "who cannot be heard is dead, though its process is seen to live",
        "worker/peers.py", "if fate is Fate.unknown and for_long == silent:", "if for_long == silent:",
        "tests/unit/test_peers.py::test_the_silence_of_who_lives_means_nothing_until_it_ends",
    ),
    "slow-is-dead": Mutant(
        "P5", "who says that it is slow is not waited for",
        "worker/peers.py", "max(CONFIRM_S, LAGS * about.lag_ms / 1000)", "CONFIRM_S",
        "tests/unit/test_peers.py::test_who_says_that_it_is_slow_is_waited_for",
    ),
    "silent-for-ever": Mutant(
        "P5", "who was silent for a moment gets no share any more",
        "worker/peers.py", "self._dead.discard((partition, owner))", "pass",
        "tests/unit/test_peers.py::test_who_was_silent_for_a_moment_is_back_as_soon_as_it_is_heard",
    ),
    "living-have-crashed": Mutant(
        "P14", "an owner whose process lives counts as crashed when its lease has passed and its connections are cut",
        "lua/acquire.lua", "(silent and seen ~= 'lives')", "silent",
        _races("test_p04_acquire.py::test_who_is_seen_to_live_has_not_crashed"),
    ),
    "retry-behind-the-others": Mutant(
        "P8", "a command that is tried again goes behind those that came after it",
        "worker/endings.py", "lane.queue.appendleft(c)", "lane.queue.append(c)",
        _races("test_p08_order.py::test_a_command_that_is_tried_again_keeps_its_place"),
    ),
    "younger-before-the-inbox": Mutant(
        "P8", "whoever loads an instance does not compare with the inbox's head",
        "worker/lane.py",
        "older = [c for c in self.queue if not c.parked and c.order < first.order]",
        'first.entry = f"{1 << 60}-0"; older = list(self.queue)',
        _races("test_p08_order.py::test_younger_entries_go_behind_a_parked_head"),
    ),
    "inbox-before-older-entries": Mutant(
        "P9", "inboxes are served before everything older was read",
        "worker/lane.py", "and p.caught_up:", ":",
        _races("test_p09_ready.py::test_an_inbox_waits_until_all_that_is_older_was_read"),
    ),
    "appends-side-by-side": Mutant(
        "P10", "a partition may have several unanswered append calls",
        "store/append.py", "if line.task is None:", "if True:",
        _races("test_p10_appends.py::test_one_append_of_a_partition_is_unanswered_at_most"),
    ),
    "looks-do-not-merge": Mutant(
        "P11", "each change by others appends a look, though one waits",
        "lua/_words.lua", "redis.call('HEXISTS', accepted, name) == 0", "true",
        _races("test_p11_looks.py::test_looks_merge_while_one_waits"),
    ),
    "attempts-share-a-copy": Mutant(
        "P12", "all attempts on a version work on one decoded instance",
        "worker/judge.py", _BUILD, f"judge.__dict__.setdefault((c.key, snap.version), {_BUILD})",
        _races("test_p12_own_copy.py::test_what_an_attempt_that_raised_has_changed_is_not_committed"),
    ),
    "another-version-s-fields-dropped": Mutant(
        "P12", "a change drops the fields of the data that this version of the class does not know",
        "declaration/spec.py", "carried(old, stored, new, raw)", "raw",
        "tests/integration/test_two_versions.py::test_an_older_worker_keeps_what_a_newer_one_wrote",
    ),
    "no-op-by-its-bytes": Mutant(
        "P12", "a no-op that writes its data in another encoding makes a new version",
        "declaration/spec.py", "if same(old, new):", "if False:",
        "tests/integration/test_two_versions.py::test_a_no_op_is_one_whatever_the_former_encoding",
    ),
    "unknown-fails-at-once": Mutant(
        "P42", "a command that this worker's code does not know fails at once",
        "worker/versions.py", "if p.now_ms() >= until_ms:", "if True:",
        "tests/integration/test_other_versions.py::test_a_command_that_a_worker_does_not_know_waits_in_its_place",
    ),
    "next-owner-is-not-asked": Mutant(
        "P42", "what waits for another version of the code is not found by the next owner",
        "lua/postpone.lua", "if ARGV[f] == '@version' and ARGV[f + 1] ~= '' then for_others = true end", "",
        "tests/integration/test_other_versions.py::test_a_command_that_a_worker_does_not_know_waits_in_its_place",
    ),
    "step-on-uncommitted-state": Mutant(
        "P13", "a step runs while what it stands on is not committed",
        "worker/execute.py", "await self.lane.settled()", "pass",
        _races("test_p12_own_copy.py::test_a_step_waits_until_what_it_stands_on_is_committed"),
    ),
    "cache-kept-on-conflict": Mutant(
        "P13, P19", "after a conflict the chain runs again on the cached instance",
        "worker/lane.py", "self.broken = self.loaded = False", "self.broken = False",
        _races("test_p12_own_copy.py::test_a_chain_whose_first_commit_was_not_applied_runs_again"),
    ),
    "deaths-blamed-on-all": Mutant(
        "P14", "an owner's death counts for what others had begun",
        "lua/acquire.lua", "pending[2] == dead", "true",
        _races("test_p14_crashes.py::test_a_death_is_not_put_on_what_another_owner_had_begun"),
    ),
    "stopped-is-crashed": Mutant(
        "P14", "an owner that is still subscribed when its lease has passed counts as crashed",
        "lua/acquire.lua", "if seen == 'ended' or (silent and seen ~= 'lives') then dead = owner end", "dead = owner",
        _races("test_p04_acquire.py::test_a_stopped_owner_has_not_crashed"),
    ),
    "suspects-in-company": Mutant(
        "P14", "a command whose worker died twice runs beside others",
        "worker/lane.py", "if head.crashes >= SUSPICIOUS and not kills(head, p.settings.max_crashes):", "if False:",
        _races("test_p14_crashes.py::test_a_suspect_runs_alone_and_its_neighbours_do_not_pay"),
    ),
    "progress-is-no-excuse": Mutant(
        "P14", "a step that is recorded does not set the count of deaths back",
        "worker/execute.py", "if command.crashes:  # in one write", "if False:  # in one write",
        _races("test_p14_crashes.py::test_a_recorded_step_clears_its_command"),
    ),
    "late-killers-go-free": Mutant(
        "P14", "a death of the only suspect does not count when it had company",
        "worker/suspects.py", "if worker == dead and size == 1:", "if False:",
        _races("test_p14_crashes.py::test_who_fell_too_often_as_the_only_suspect_is_buried"),
    ),
    "branches-share-their-numbers": Mutant(
        "P15", "sleeps and uuids are counted in the order of time, over all branches",
        "worker/branches.py", "or attempt.former or", "or True or",
        "tests/integration/test_branches_durable.py::test_branches_draw_the_same_at_each_attempt",
    ),
    "heard-in-any-order": Mutant(
        "P15", "a replay hears what is recorded as it comes to it, not in the order of the first run",
        "worker/order.py", "if event in self._left:\n            heard", "if False:\n            heard",
        "tests/unit/test_branches.py::test_after_each_death_it_decides_as_it_had",
    ),
    "begun-before-all-is-heard": Mutant(
        "P15", "a replay begins new steps while recorded results are still to be heard",
        "worker/order.py", "while not self.live:", "while False:",
        "tests/unit/test_cut.py::test_what_lost_a_recorded_race_does_not_begin_again_though_the_death_came_before_the_note",
    ),
    "plain-timers-do-not-count": Mutant(
        "P15", "a body leaves memory though a time-out of asyncio's runs around its sleep",
        "worker/branches.py", "if self.timers and self.drop_timers():", "if False:",
        "tests/integration/test_branches_durable.py::test_a_time_out_of_asyncios_fires_around_a_long_sleep",
    ),
    "leaves-memory-beside-a-plain-await": Mutant(
        "P15", "a body leaves memory though one of its branches stands in a plain await",
        "worker/waits.py", "attempt.is_still and attempt.branches.held_all", "attempt.is_still",
        "tests/integration/test_branches_durable.py::test_a_body_stays_in_memory_while_one_branch_stands_in_a_plain_await",
    ),
    "a-told-time-is-not-recorded": Mutant(
        "P15", "what ctx.now told before the first record is told anew by the next attempt",
        "worker/engine.py", "attempt.noted = attempt.send(field, value)", "pass",
        "tests/integration/test_branches_durable.py::test_the_time_before_the_first_record_is_that_of_all_attempts",
    ),
    "own-result-instead-of-the-record": Mutant(
        "P15", "the code goes on with its own result though another one stands",
        "worker/execute.py", "return stands", "return value",
        _races("test_p15_records.py::test_the_code_goes_on_with_the_record_that_stands"),
    ),
    "record-of-what-is-gone": Mutant(
        "P15", "a late record makes the journal of an ended command anew",
        "lua/record.lua", "if not live[r] then", "if false then",
        _races("test_p15_records.py::test_a_late_record_makes_no_journal"),
    ),
    "running-first-step-cancelled": Mutant(
        "P28", "a command whose first step runs is said to be cancelled",
        "lua/cancel.lua", "begun = not claim.err and #claim > 0", "begun = false",
        _races("test_p15_records.py::test_a_cancel_of_what_runs_its_first_step_only_asks"),
    ),
    "resume-repeats-the-failure": Mutant(
        "P25", "the record of the step whose failure paused the instance stays when it is resumed",
        "lua/pause.lua", "redis.call('HDEL', steps, step)", "",
        "tests/tour/test_10_resuming.py::test_what_failed_is_tried_again_and_nothing_else",
    ),
    "resume-of-what-was-gone-on-from": Mutant(
        "P25", "a step is tried again though the body has gone on from its failure",
        "worker/execute.py", "if of is not task and not (main and of.done())", "if True",
        "tests/tour/test_10_resuming.py::test_a_failure_that_was_answered_by_undoing_stands",
    ),
    "put-back-forgets-the-claim": Mutant(
        "P28", "a command that was claimed and put back is not asked whether it is to be cancelled",
        "worker/lane.py", "c.journalled, c.peeked = True, False\n        self.queue", "pass\n        self.queue",
        _races("test_p15_records.py::test_a_cancel_of_what_was_claimed_and_put_back_is_not_overlooked"),
    ),
    "postpone-overlooks-a-cancel": Mutant(
        "P16", "a command that was asked to cancel before it is put to sleep sleeps on",
        "lua/postpone.lua", "if cancel then", "if false then",
        _races("test_p15_records.py::test_a_cancel_that_comes_before_the_postpone_is_found_by_it"),
    ),
    "wake-up-of-another": Mutant(
        "P16", "a wake-up of a command that is not its inbox's head makes the key ready",
        "lua/wake.lua", "if head_id == id and where == '@' .. entry .. ' ' .. key then plan = 'ready' end", "plan = 'ready'",
        _races("test_p15_records.py::test_a_wake_up_of_a_command_that_is_not_the_head_does_nothing_but_go"),
    ),
    "commit-from-the-middle": Mutant(
        "P19", "a command is committed though another is its inbox's head",
        "lua/commit.lua", "if head_id == id and head_entry == entry then", "if true then",
        _races("test_p08_order.py::test_a_commit_from_the_middle_of_an_inbox_is_a_conflict"),
    ),
    "commit-after-a-conflict": Mutant(
        "P19", "what stood on a conflict is applied if the version fits by chance",
        "lua/commit.lua", "else\n      taken[id] = true", "if word == 'conflict' then version_of[name] = nil end else taken[id] = true",
        _races("test_p19_commit.py::test_what_stands_on_a_conflict_is_a_conflict_whatever_the_version"),
    ),
    "twice-in-a-batch": Mutant(
        "P19", "a command that is in a batch twice is applied twice",
        "lua/commit.lua", "or taken[id] or", "or",
        _races("test_h_scripts.py::test_a_command_that_is_twice_in_a_batch_is_applied_once"),
    ),
    "bad-command-in-company": Mutant(
        "P20", "after a commit that raised the same batch is sent again",
        "worker/batches.py", "[self._ended.pop(0)]", "take_batch(self._ended)",
        _races("test_p19_commit.py::test_a_batch_that_raises_is_halved_until_one_is_alone"),
    ),
    "accepted-before-it-is-safe": Mutant(
        "P23", "a client with durability hears that a command is accepted before it is that safe",
        "store/append.py", "if self._durability is None or await secured(", "if True or await secured(",
        "tests/integration/test_client_reply.py::test_a_durability_that_is_not_there_is_waited_for",
    ),
    "outcome-before-it-is-safe": Mutant(
        "P23", "a client with durability is told an outcome before it is that safe",
        "store/reply.py", "safe = await settled(self._router, part, self._durability, since)", "safe = True",
        "tests/integration/test_client_reply.py::test_an_outcome_that_is_not_safe_is_not_told",
    ),
    "what-is-heard-is-told": Mutant(
        "P23", "a client with durability believes what it hears on its channel",
        "store/reply.py", "if self._durability is None:\n                    wait.tell", "if True:\n                    wait.tell",
        "tests/integration/test_durability.py::test_a_result_that_is_heard_is_told_when_a_replica_has_it",
    ),
    "wait-of-another-connection": Mutant(
        "P23", "a WAIT counts though the connection that was told is lost",
        "store/durability.py", "return Stand(wire, wire.generation)", "return Stand(wire, 0)",
        "tests/integration/test_durability.py::test_what_another_connection_was_told_is_not_settled_by_this_one",
    ),
    "time-goes-back": Mutant(
        "P26, P31", "the partition's time goes back with the server's clock",
        "lua/_words.lua", "if now < last then now, ahead = last, last - wall end", "",
        _races("test_h_server_clock.py::test_a_resend_over_the_step_is_recognised"),
    ),
    "id-of-the-future": Mutant(
        "P26", "an id that was made later than now is accepted",
        "lua/append.lua", " or made - now > AHEAD_MS", "",
        _races("test_h_server_clock.py::test_new_commands_are_accepted_after_the_step"),
    ),
    "dead-until-the-clock-has-caught-up": Mutant(
        "P5", "a dead owner's lease lasts until the server's clock, which was set back, has caught up",
        "lua/acquire.lua", "if held[3] and held[3] == passed then deadline = 0 end", "",
        _races("test_h_server_clock.py::test_a_dead_owner_s_lease_does_not_last_an_hour"),
    ),
    "clock-moved-by-a-slow-answer": Mutant(
        "P5", "a worker's idea of Redis' time moves by half of the time for which an answer was late",
        "worker/daemon.py", "min(max(self._clock_offset_ms, redis_ms - time.monotonic() * 1000), redis_ms + 1 - asked_s * 1000)",
        "redis_ms - (asked_s + time.monotonic()) * 500",
        _races("test_h_server_clock.py::test_a_slow_answer_does_not_move_the_clock"),
    ),
    "doubt-outlasts-a-renewal": Mutant(
        "P5", "a lease that was read with doubt is believed for two minutes, though its owner has renewed it since",
        "worker/daemon.py", "min(before.deadline_ms, self.now_ms() + self.settings.lease_ms) if same", "before.deadline_ms if same",
        _races("test_h_server_clock.py::test_a_lease_ends_by_its_watcher_s_clock"),
    ),
    "cut-is-not-heeded": Mutant(
        "I4", "a step that the body cancelled runs again whenever the body comes back to memory",
        "worker/cut.py", "if attempts == attempt.command.attempts and n <= records:", "if False:",
        "tests/unit/test_cut.py::test_an_attempt_that_goes_on_does_not_run_it_again",
    ),
    "failed-command-is-not-kept": Mutant(
        "P25", "a command that failed with policy pause does not pause its instance",
        "lua/postpone.lua", "if paused ~= '' then", "if false then",
        _races("test_p27_by_hand.py::test_a_failed_command_stays_its_paused_key_s_head"),
    ),
    "late-resend-runs-again": Mutant(
        "P26", "an unknown id older than the retention is accepted",
        "lua/append.lua", "if made and (now - made > resend_within or made - now > AHEAD_MS) then", "if false then",
        _races("test_p10_appends.py::test_an_unknown_id_older_than_the_retention_is_too_late"),
    ),
    "outcomes-of-the-last-minute-only": Mutant(
        "P26", "a resend is not looked for in the period before",
        "lua/append.lua", "ended[c] or ended_before[c]", "ended[c]",
        _races("test_p10_appends.py::test_a_resend_of_what_has_ended_gets_the_outcome_over_the_turn_of_a_period"),
    ),
    "forwarded-twice": Mutant(
        "P27, P32", "T:received does not stop an entry that was taken before",
        "lua/forward.lua", "n <= last_n", "n < last_n",
        _races("test_p27_by_hand.py::test_a_forwarded_entry_arrives_once"),
    ),
    "once-without-an-end": Mutant(
        "P29", "the end of a command does not set one to its idempotency record",
        "lua/effects/once.lua", "redis.call('PEXPIRE', KEYS[k], ONCE_TTL_MS)", "",
        _races("test_p10_appends.py::test_an_idempotency_record_has_no_ttl_while_its_command_lives"),
    ),
    "queued-by-its-timer-and-forgotten": Mutant(
        "P33", "a due delayed command is in the stream and not in T:accepted",
        "lua/wake.lua", "redis.call('HSET', accepted, id, entry)", "",
        _races("test_p27_by_hand.py::test_a_due_delayed_command_is_queued_once"),
    ),
    "reply-to-anybody": Mutant(
        "P33", "an entry's reply channel may lie outside the namespace",
        "store/commands.py", 'reply=reply if reply.startswith(channel_prefix) else "",', "reply=reply,",
        _races("test_p27_by_hand.py::test_a_reply_channel_outside_the_namespace_is_not_published_to"),
    ),
    "drop-of-another's-field": Mutant(
        "P27", "a script removes an accepted field that names another entry",
        "lua/drop.lua", "and redis.call('HGET', accepted, field) == entry then", "then",
        _races("test_p27_by_hand.py::test_no_script_removes_an_accepted_field_that_is_not_its_entry_s"),
    ),
}  # fmt: skip

for _name, _mistake in MISTAKES.items():
    _broken: Broken = _mistake.broken
    MUTANTS[_name] = Mutant(_mistake.rule, _mistake.what, f"lua/{_broken.script}.lua", _broken.old, _broken.new)
