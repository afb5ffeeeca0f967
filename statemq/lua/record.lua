-- After it each step has one record for ever: the first one written (P15). Engine fields ('@…') are overwritten.
-- A command that is not accepted any more gets none, so that a straggler cannot make its journal anew.
--
-- KEYS lease accepted, then one steps key for each record
-- ARGV token number n, then n times: id field value
-- RETURNS done, then for each record: '' (yours stands) | the record that stood before | false (the command is gone); or fenced | rewound
local lease, accepted = KEYS[1], KEYS[2]
local token, number, n = ARGV[1], ARGV[2], tonumber(ARGV[3])
local fault = fence(lease, token, number)
if fault == 'fenced' or fault == 'rewound' then return { fault } end

local ids = {}
for r = 1, n do ids[r] = ARGV[3 * r + 1] end
local live = redis.call('HMGET', accepted, unpack(ids))
local answer = { 'done' }
if not fault then redis.call('HSET', lease, 'call', number) end
for r = 1, n do
  local steps, field, value = KEYS[2 + r], ARGV[3 * r + 2], ARGV[3 * r + 3]
  if not live[r] then
    answer[r + 1] = false
  elseif string.sub(field, 1, 1) == '@' then
    if not fault then redis.call('HSET', steps, field, value) end
    answer[r + 1] = ''
  elseif fault or redis.call('HSETNX', steps, field, value) == 0 then
    local stands = redis.call('HGET', steps, field)
    answer[r + 1] = (stands == value or not stands) and '' or stands
  else
    answer[r + 1] = ''
  end
end
return answer
