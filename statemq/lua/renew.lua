-- After it the owner's deadline is lease_ms away. Not numbered: it goes over a connection of its own and changes nothing else.
--
-- KEYS lease
-- ARGV token lease_ms
-- RETURNS done paused | fenced
local lease = KEYS[1]
local token, lease_ms = ARGV[1], tonumber(ARGV[2])
local held = redis.call('HMGET', lease, 'token', 'paused')
if held[1] ~= token then return { 'fenced' } end
redis.call('HSET', lease, 'deadline', text(clock() + lease_ms))
return { 'done', held[2] or '' }
