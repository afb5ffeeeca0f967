-- After it nothing new of the instance starts (pause), or what waits goes on (resume; a command that failed with policy "pause" begins
-- its attempts anew, and the steps that failed it; one that waits for another version of the code, its wait). With an empty key it is
-- the partition's part of pausing a whole machine (P11).
--
-- KEYS lease commands accepted ready timers instance inbox steps(of the head)
-- ARGV pause(1|0) key head_id
-- RETURNS done
local lease, commands, accepted, ready, timers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local instance, inbox, steps = KEYS[6], KEYS[7], KEYS[8]
local pause, key, head_id = ARGV[1], ARGV[2], ARGV[3]
if key == '' then
  if pause == '1' then redis.call('HSET', lease, 'paused', '1') else redis.call('HDEL', lease, 'paused') end
  return 'done'
end
if pause == '1' then
  redis.call('HSET', instance, 'paused', 'by an operator')
  redis.call('ZREM', ready, key)
else
  redis.call('HDEL', instance, 'paused')
  local for_others = head_id ~= '' and (redis.call('HGET', steps, '@version') or '') ~= ''
  if for_others or head_id ~= '' and redis.call('HEXISTS', steps, '@attempts') == 1 then
    -- the steps whose failure it was run again: their records would only repeat it
    for step in string.gmatch(redis.call('HGET', steps, '@failed') or '', '[^@]+') do redis.call('HDEL', steps, step) end
    redis.call('HDEL', steps, '@attempts', '@error', '@failed', '@version')
  end
  if redis.call('EXISTS', inbox) == 1 then
    local _, id = element(redis.call('LINDEX', inbox, 0))
    if for_others or not redis.call('ZSCORE', timers, id or '') then redis.call('ZADD', ready, 'NX', clock(), key) end
  end
end
look(commands, accepted, key)
return 'done'
