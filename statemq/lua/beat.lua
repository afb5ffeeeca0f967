-- After it the registry says that this worker lives (or, with gone, that it does not). Whoever joins makes room: the long silent are
-- forgotten then, so there are no more than had joined in that time.
--
-- KEYS workers about
-- ARGV worker about live_ms forget_ms gone news_channel
-- RETURNS the ids of the live workers
local workers, about = KEYS[1], KEYS[2]
local worker, text, live_ms, forget_ms, gone, news = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local now = clock()
if gone == '1' then
  redis.call('ZREM', workers, worker)
  redis.call('HDEL', about, worker)
  redis.call('PUBLISH', news, 'left ' .. worker)
else
  redis.call('HSET', about, worker, text)
  if redis.call('ZADD', workers, now, worker) == 1 then
    redis.call('PUBLISH', news, 'joined ' .. worker)
    -- P33: the two keys are trimmed together
    local old = redis.call('ZRANGEBYSCORE', workers, '-inf', now - forget_ms, 'LIMIT', 0, 100)
    if #old > 0 then
      redis.call('ZREM', workers, unpack(old))
      redis.call('HDEL', about, unpack(old))
    end
  end
end
-- a sign from beyond this clock is no sign of life: a share would be left to nobody
return redis.call('ZRANGEBYSCORE', workers, now - live_ms, now + live_ms)
