-- After it the instance is not paused any more for what its former owner could not read: its owner can, and what waits goes on. Any other
-- pause stands.
--
-- KEYS lease ready instance inbox
-- ARGV token number key
-- RETURNS done | fenced | rewound | seen
local lease, ready, instance, inbox = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, number, key = ARGV[1], ARGV[2], ARGV[3]
local fault = fence(lease, token, number)
if fault then return fault end

local now = clock()
local paused = redis.call('HGET', instance, 'paused')
redis.call('ZCARD', ready) -- damaged, it raises here, where nothing has been written (P20)

redis.call('HSET', lease, 'call', number)
if for_other_version(paused) then
  redis.call('HDEL', instance, 'paused')
  settle_ready(ready, inbox, key, now)
end
return 'done'
