-- After it no ended command lies at the head of the key's inbox (P28), and T:ready agrees with what is left.
--
-- KEYS lease accepted ready inbox
-- ARGV token number key
-- RETURNS done | fenced | rewound | seen
local lease, accepted, ready, inbox = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, number, key = ARGV[1], ARGV[2], ARGV[3]
local fault = fence(lease, token, number)
if fault then return fault end

redis.call('LLEN', inbox)
redis.call('HSET', lease, 'call', number)
live_head(inbox, accepted)
if redis.call('EXISTS', inbox) == 0 then redis.call('ZREM', ready, key) end
return 'done'
