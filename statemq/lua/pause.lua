-- After it nothing new of the instance starts (pause), or what waits goes on (resume; a command that failed with policy "pause" begins
-- its attempts anew, and the steps that failed it; one that waits for another version of the code, its wait). With an empty key it is
-- the partition's part of pausing a whole machine (P11).
--
-- KEYS lease commands accepted ready timers instance inbox steps(of the head) timers:data
-- ARGV pause(1|0) key head_id
-- RETURNS done | moved (head_id is not the inbox's head any more: nothing was written)
local lease, commands, accepted, ready, timers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local instance, inbox, steps, timers_data = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local pause, key, head_id = ARGV[1], ARGV[2], ARGV[3]
if key == '' then
  if pause == '1' then redis.call('HSET', lease, 'paused', '1') else redis.call('HDEL', lease, 'paused') end
  return 'done'
end
if pause == '1' then
  redis.call('HSET', instance, 'paused', 'by an operator')
  redis.call('ZREM', ready, key)
else
  local _, head = element(redis.call('LINDEX', inbox, 0) or '')
  if head_id ~= '' and head ~= head_id then return 'moved' end
  redis.call('HDEL', instance, 'paused')
  -- an owner that knew it may have died before it ended: its field is empty then, and its timer still that of the wait
  local for_others = head_id ~= '' and redis.call('HEXISTS', steps, '@version') == 1
  if for_others or head_id ~= '' and redis.call('HEXISTS', steps, '@attempts') == 1 then
    -- the steps whose failure it was run again: their records would only repeat it
    for step in string.gmatch(redis.call('HGET', steps, '@failed') or '', '[^@]+') do redis.call('HDEL', steps, step) end
    redis.call('HDEL', steps, '@attempts', '@error', '@failed', '@version')
  end
  if for_others then -- else it would wait for that when it is paused and resumed again before its owner has looked
    redis.call('ZREM', timers, head_id)
    redis.call('HDEL', timers_data, head_id)
  end
  if redis.call('EXISTS', inbox) == 1 then
    if not redis.call('ZSCORE', timers, head or '') then redis.call('ZADD', ready, 'NX', clock(), key) end
  end
end
look(commands, accepted, key)
return 'done'
