-- After it the registry says that this worker lives (or, with gone, that it does not). Whoever joins makes room: the long silent are
-- forgotten then, so there are no more than had joined in that time. Signs from beyond this clock, which was set back, are forgotten at once: they
-- would be signs of life when it is there again, and a share would be left to nobody. Who lives gives the next one soon.
--
-- KEYS workers about
-- ARGV worker about live_ms forget_ms gone news_channel
-- RETURNS the ids of the live workers
local workers, about = KEYS[1], KEYS[2]
local worker, text, live_ms, forget_ms, gone, news = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local now = clock()

local function forget(ids) -- P33: the two keys are trimmed together
  each_slice(ids, 100, function(...)
    redis.call('ZREM', workers, ...)
    redis.call('HDEL', about, ...)
  end)
end

if gone == '1' then
  redis.call('ZREM', workers, worker)
  redis.call('HDEL', about, worker)
  redis.call('PUBLISH', news, 'left ' .. worker)
else
  redis.call('HSET', about, worker, text)
  if redis.call('ZADD', workers, now, worker) == 1 then
    redis.call('PUBLISH', news, 'joined ' .. worker)
    forget(redis.call('ZRANGEBYSCORE', workers, '-inf', now - forget_ms, 'LIMIT', 0, 100))
  end
end
local live, beyond = {}, {}
local signs = redis.call('ZRANGEBYSCORE', workers, now - live_ms, '+inf', 'WITHSCORES')
for i = 1, #signs, 2 do
  local list = tonumber(signs[i + 1]) > now + live_ms and beyond or live
  list[#list + 1] = signs[i]
end
forget(beyond)
return live
