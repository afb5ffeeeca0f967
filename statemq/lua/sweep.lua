-- After it an accepted command whose stream entry somebody deleted has ended as failed (P27). Others are not touched.
--
-- KEYS lease commands accepted outcomes(stem) history, then the steps of each
-- ARGV token number worker history_cap n, then n times: id entry outcome_json
-- RETURNS done, then the ids that were ended; or fenced | rewound | seen
local lease, commands, accepted, outcomes, history = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token, number, worker, history_cap, n = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local fault = fence(lease, token, number)
if fault then return { fault } end

local lost = {}
for c = 1, n do
  local id, entry = ARGV[3 * c + 3], ARGV[3 * c + 4]
  if redis.call('HGET', accepted, id) == entry and #redis.call('XRANGE', commands, entry, entry) == 0 then lost[#lost + 1] = c end
end
local now = clock()
redis.call('XLEN', history)
redis.call('HLEN', period_key(outcomes, now))

redis.call('HSET', lease, 'call', number)
local answer = { 'done' }
for _, c in ipairs(lost) do
  local id, entry = ARGV[3 * c + 3], ARGV[3 * c + 4]
  redis.call('HDEL', accepted, id)
  answer[#answer + 1] = id
  if string.sub(id, 1, 6) ~= '@look:' then
    redis.pcall('XACK', commands, 'workers', entry)
    redis.call('UNLINK', KEYS[5 + c])
    keep_outcomes(outcomes, now, { id, stamp(ARGV[3 * c + 5], now) })
    redis.call('XADD', history, 'MAXLEN', '~', history_cap, '*', 'id', id, 'key', '', 'transition', '', 'from', '', 'to', '',
      'version', '', 'outcome', 'failed', 'attempts', '0', 'worker', worker,
      'reason', 'removed from the stream by hand')
  end
end
return answer
