-- After it the command has failed for good: outcome, history and a dead letter say so, and nothing else of it is left.
-- An entry that is no accepted command's (garbage, a forged or repeated id) becomes a dead letter only; whoever owns the id keeps it.
--
-- KEYS lease commands accepted outcomes(stem) history failed ready timers timers:data inbox steps, then those of the effects
-- ARGV token number worker history_cap failed_cap where(s|i) entry id key transition outcome_json attempts reply
--      state version letter_fields [field value …] failed_bytes; then the effects' tail
-- RETURNS buried | garbage (in a list with the number of older letters that had to go for it, if any) | gone | fenced | rewound | seen
local lease, commands, accepted, outcomes, history, failed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local ready, timers, timers_data, inbox, steps = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local token, number, worker, history_cap, failed_cap = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local from, entry, id, key, transition = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local json, attempts, reply = ARGV[11], ARGV[12], ARGV[13]
local state, version, fields = ARGV[14], ARGV[15], tonumber(ARGV[16])
local fault, mark = fence(lease, token, number)
if fault then return fault end

local now, wall, marked = own_time(mark)
local where = id ~= '' and redis.call('HGET', accepted, id) or false
local owned = where and where == (from == 'i' and '@' .. entry .. ' ' .. key or entry)
local there = from == 'i' or #redis.call('XRANGE', commands, entry, entry) > 0
-- a damaged key raises here, where nothing has been written
check_log(failed)
check_log(history)
redis.call('ZCARD', timers)
redis.call('HLEN', timers_data)
redis.call('HLEN', period_key(outcomes, now))
redis.call('ZCARD', ready)
-- its own keys may be what it is buried for
local acts = checked_effects(KEYS, 12, ARGV, 18 + 2 * fields, true)

redis.call('HSET', lease, 'call', number, 'clock', marked)
if not owned and not there then return 'gone' end
local letter, reason = {}, ''
for f = 17, 16 + 2 * fields do
  letter[#letter + 1] = ARGV[f]
  if ARGV[f] == 'reason' and f % 2 == 1 then reason = ARGV[f + 1] end
end
local dropped = keep_letter(failed, failed_cap, tonumber(ARGV[17 + 2 * fields]), 'at', text(wall), unpack(letter))
if from == 's' then
  redis.pcall('XACK', commands, 'workers', entry)
  redis.call('XDEL', commands, entry)
end
if not owned then return dropped > 0 and { 'garbage', dropped } or 'garbage' end
end_command({ accepted = accepted, outcomes = outcomes, history = history, timers = timers, timers_data = timers_data, steps = steps },
  now, wall, id, json, reply, history_cap, { 'key', key, 'transition', transition, 'from', state,
  'to', state, 'version', version, 'outcome', 'failed', 'attempts', attempts, 'worker', worker, 'reason', reason },
  function(ended) write_effects(KEYS, ARGV, acts and acts[1], ended) end)
-- its inbox may be what it is buried for: a damaged one is left as it is
if from == 'i' and type(redis.pcall('LLEN', inbox)) == 'number' then
  live_head(inbox, accepted)
  settle_ready(ready, inbox, key, wall)
end
return dropped > 0 and { 'buried', dropped } or 'buried'
