-- After it an accepted command whose stream entry, inbox or timer somebody deleted has ended as failed (P27). Others are not touched.
--
-- KEYS lease commands accepted outcomes(stem) history timers timers:data, then steps inbox of each
-- ARGV token number worker history_cap reply_prefix once_prefix n, then n times: id where outcome_json reply once, as far as they are known
-- RETURNS done, then the ids that were ended; or fenced | rewound | seen
local lease, commands, accepted, outcomes, history = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local timers, timers_data = KEYS[6], KEYS[7]
local token, number, worker, history_cap, reply_prefix, once_prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local n = tonumber(ARGV[7])
local fault, mark = fence(lease, token, number)
if fault then return { fault } end

local lost = {}
for c = 1, n do
  local id, where, inbox = ARGV[5 * c + 3], ARGV[5 * c + 4], KEYS[7 + 2 * c]
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
local now, wall, marked = own_time(mark)
check_log(history)
redis.call('HLEN', period_key(outcomes, now))
redis.call('ZCARD', timers)
redis.call('HLEN', timers_data)

redis.call('HSET', lease, 'call', number, 'clock', marked)
local answer = { 'done' }
for _, c in ipairs(lost) do
  local id, where = ARGV[5 * c + 3], ARGV[5 * c + 4]
  answer[#answer + 1] = id
  if string.sub(id, 1, 6) == '@look:' then
    redis.call('HDEL', accepted, id)
  else
    local of = { key = '', transition = '', reply = ARGV[5 * c + 6], once = ARGV[5 * c + 7] }
    if where == 'timer' then of = delayed(timers_data, id, reply_prefix, once_prefix) end
    redis.pcall('XACK', commands, 'workers', where)
    end_command({ accepted = accepted, outcomes = outcomes, history = history, timers = timers, timers_data = timers_data,
      steps = KEYS[6 + 2 * c] }, now, wall, id, ARGV[5 * c + 5], of.reply, history_cap,
      { 'key', of.key, 'transition', of.transition, 'from', '', 'to', '', 'version', '', 'outcome', 'failed', 'attempts', '0',
        'worker', worker, 'reason', 'removed by hand' }, settle_once(of.once))
  end
end
return answer
