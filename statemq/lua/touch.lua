-- After it this connection has written to the partition, so that a WAIT behind it is for all that the server had done before (P23).
--
-- KEYS touched
-- ARGV ttl_ms
-- RETURNS done
local touched = KEYS[1]
redis.call('HSET', touched, 'by', 'durability')
redis.call('PEXPIRE', touched, ARGV[1])
return 'done'
