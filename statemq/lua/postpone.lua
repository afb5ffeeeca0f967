-- After it the command is the head of its key's inbox and waits, all that was read of the key behind it in order (P8);
-- a timer wakes it, or, paused, an operator. What waits for another version of the code (its field @version) stays in T:ready, so that
-- the next owner tries it at once; the present one looks at T:ready no more. If it was asked to cancel meanwhile, it is ready at once (P16).
--
-- KEYS lease commands accepted ready timers timers:data steps inbox instance
-- ARGV token number key where(s|i) entry id element due_ms wake_data paused
--      fields [field value …] behind, then behind times: entry id element
-- RETURNS asleep | ready | gone | fenced | rewound | seen
local lease, commands, accepted, ready, timers, timers_data = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local steps, inbox, instance = KEYS[7], KEYS[8], KEYS[9]
local token, number, key, from, entry, id, text = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local due, wake_data, paused = ARGV[8], ARGV[9], ARGV[10]
local fault = fence(lease, token, number)
if fault then return fault end

local here = '@' .. entry .. ' ' .. key
local where = redis.call('HGET', accepted, id)
local fields = tonumber(ARGV[11])
local at = 12 + 2 * fields
local behind = tonumber(ARGV[at])
local lost = (from == 's' and where ~= entry) or (from == 'i' and where ~= here)
local ids = {}
for b = 1, behind do ids[b] = ARGV[at + 3 * b - 1] end
local stands = behind > 0 and redis.call('HMGET', accepted, unpack(ids)) or {}
-- a damaged key of the partition raises here, where nothing has been written (P20)
redis.call('LLEN', inbox)
redis.call('XLEN', commands)
redis.call('ZCARD', ready)
redis.call('ZCARD', timers)
redis.call('HLEN', timers_data)
local cancel = redis.call('HGET', steps, '@cancel')
redis.call('HGET', instance, 'paused')

redis.call('HSET', lease, 'call', number)
local push, drop, moved = {}, {}, {}
for b = behind, 1, -1 do
  local e = ARGV[at + 3 * b - 2]
  if stands[b] == e then
    push[#push + 1] = ARGV[at + 3 * b]
    drop[#drop + 1] = e
    moved[#moved + 1] = ids[b]
    moved[#moved + 1] = '@' .. e .. ' ' .. key
  end
end
if from == 's' and not lost then
  push[#push + 1] = text
  drop[#drop + 1] = entry
  moved[#moved + 1] = id
  moved[#moved + 1] = here
end
if #push > 0 then
  redis.call('LPUSH', inbox, unpack(push))
  redis.pcall('XACK', commands, 'workers', unpack(drop))
  redis.call('XDEL', commands, unpack(drop))
  redis.call('HSET', accepted, unpack(moved))
end
local now = clock()
if lost then
  live_head(inbox, accepted)
  settle_ready(ready, inbox, key, now)
  return 'gone'
end
live_head(inbox, accepted)
redis.call('HDEL', steps, '@mark') -- P14: it is not in progress any more
local for_others = false
for f = 12, 11 + 2 * fields, 2 do
  redis.call('HSET', steps, ARGV[f], ARGV[f + 1])
  if ARGV[f] == '@version' and ARGV[f + 1] ~= '' then for_others = true end
end
if cancel then
  settle_ready(ready, inbox, key, now)
  return 'ready'
end
if for_others then
  redis.call('ZADD', ready, 'NX', now, key)
else
  redis.call('ZREM', ready, key)
end
if paused ~= '' then
  redis.call('HSET', instance, 'paused', paused)
  redis.call('ZREM', timers, id)
  redis.call('HDEL', timers_data, id)
else
  redis.call('ZADD', timers, due, id)
  redis.call('HSET', timers_data, id, wake_data)
end
return 'asleep'
