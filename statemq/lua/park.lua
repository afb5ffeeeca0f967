-- After it the commands lie in their keys' inboxes and no longer in the stream. RPUSH: the youngest that were read of their keys, at the
-- end, in entry order. LPUSH: older ones than those that lie there, in front, given the youngest first (P8). With may_run the key is in
-- T:ready (P9).
--
-- KEYS lease commands accepted ready, then one inbox for each key
-- ARGV token number push(RPUSH|LPUSH) keys, then for each key: key may_run n, then n times: entry id element
-- RETURNS done [entry that is not an accepted command's …] | fenced | rewound | seen
local lease, commands, accepted, ready = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, number, side, keys = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local fault = fence(lease, token, number)
if fault then return { fault } end

-- a damaged key of the partition raises here, where nothing has been written (P20)
redis.call('XLEN', commands)
redis.call('ZCARD', ready)
local now = clock()
local answer, drop, moved, pushes = { 'done' }, {}, {}, {}
local at = 5
for k = 1, keys do
  local key, may_run, n = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local ids = {}
  for c = 1, n do ids[c] = ARGV[at + 3 * c + 1] end
  local where = redis.call('HMGET', accepted, unpack(ids))
  redis.call('LLEN', KEYS[4 + k]) -- a wrong type is found before the first write
  local push = {}
  for c = 1, n do
    local entry = ARGV[at + 3 * c]
    if where[c] == entry then
      push[#push + 1] = ARGV[at + 3 * c + 2]
      drop[#drop + 1] = entry
      moved[#moved + 1] = ids[c]
      moved[#moved + 1] = '@' .. entry .. ' ' .. key
    else
      answer[#answer + 1] = entry
    end
  end
  pushes[k] = { key, may_run, push }
  at = at + 3 + 3 * n
end

redis.call('HSET', lease, 'call', number)
for k, p in ipairs(pushes) do
  if #p[3] > 0 then
    redis.call(side, KEYS[4 + k], unpack(p[3]))
    if p[2] == '1' then redis.call('ZADD', ready, 'NX', now, p[1]) end
  end
end
if #drop > 0 then
  redis.pcall('XACK', commands, 'workers', unpack(drop))
  redis.call('XDEL', commands, unpack(drop))
  redis.call('HSET', accepted, unpack(moved))
end
return answer
