-- After it the partition has no owner and the machine's channel says so (P7). What was in progress stays pending, its counts as they were.
--
-- KEYS lease
-- ARGV token news_channel partition
-- RETURNS done | fenced
local lease = KEYS[1]
local token, news, partition = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', lease, 'token') ~= token then return 'fenced' end
redis.call('HSET', lease, 'token', '', 'owner', '', 'deadline', '0')
redis.call('PUBLISH', news, 'released ' .. partition)
return 'done'
