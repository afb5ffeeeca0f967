-- After it an accepted command whose stream entry, inbox or timer somebody deleted has ended as failed (P27). Others are not touched.
--
-- KEYS lease commands accepted outcomes(stem) history timers, then steps inbox of each
-- ARGV token number worker history_cap n, then n times: id where outcome_json
-- RETURNS done, then the ids that were ended; or fenced | rewound | seen
local lease, commands, accepted, outcomes, history, timers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local token, number, worker, history_cap, n = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local fault = fence(lease, token, number)
if fault then return { fault } end

local lost = {}
for c = 1, n do
  local id, where, inbox = ARGV[3 * c + 3], ARGV[3 * c + 4], KEYS[6 + 2 * c]
  local there = true
  if redis.call('HGET', accepted, id) ~= where then
    there = true -- it went elsewhere since the sweep looked
  elseif where == 'timer' then
    there = redis.call('ZSCORE', timers, id)
  elseif string.sub(where, 1, 1) == '@' then
    there = redis.call('EXISTS', inbox) == 1
  else
    there = #redis.call('XRANGE', commands, where, where) > 0
  end
  if not there then lost[#lost + 1] = c end
end
local now = clock()
check_log(history)
redis.call('HLEN', period_key(outcomes, now))

redis.call('HSET', lease, 'call', number)
local answer = { 'done' }
for _, c in ipairs(lost) do
  local id, where = ARGV[3 * c + 3], ARGV[3 * c + 4]
  redis.call('HDEL', accepted, id)
  answer[#answer + 1] = id
  if string.sub(id, 1, 6) ~= '@look:' then
    redis.pcall('XACK', commands, 'workers', where)
    redis.call('UNLINK', KEYS[5 + 2 * c])
    redis.call('ZREM', timers, id)
    keep_outcomes(outcomes, now, { id, stamp(ARGV[3 * c + 5], now) })
    redis.call('XADD', history, 'MAXLEN', '~', history_cap, '*', 'id', id, 'key', '', 'transition', '', 'from', '', 'to', '',
      'version', '', 'outcome', 'failed', 'attempts', '0', 'worker', worker,
      'reason', 'removed by hand')
  end
end
return answer
