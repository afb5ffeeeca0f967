-- After it each step has one record for ever: the first one written (P15). Engine fields ('@…') are overwritten.
-- A command that is not accepted any more gets none, so that a straggler cannot make its journal anew.
--
-- KEYS lease accepted, then one steps key for each record
-- ARGV token number n, n ids, then n times: field value started (the first record brings when the command began, else '')
-- RETURNS done, then for each record: '' (yours stands) | the record that stood before | false (the command is gone); or fenced | rewound
local lease, accepted = KEYS[1], KEYS[2]
local token, number, n = ARGV[1], ARGV[2], tonumber(ARGV[3])
local fault = fence(lease, token, number)
if fault == 'fenced' or fault == 'rewound' then return { fault } end

local live = redis.call('HMGET', accepted, unpack(ARGV, 4, 3 + n))
local answer = { 'done' }
if not fault then redis.call('HSET', lease, 'call', number) end
local at = 4 + n
for r = 1, n do
  local steps, field, value, started = KEYS[2 + r], ARGV[at], ARGV[at + 1], ARGV[at + 2]
  at = at + 3
  if not live[r] then
    answer[r + 1] = false
  elseif string.byte(field) == 64 then -- '@'
    if not fault then redis.call('HSET', steps, field, value) end
    answer[r + 1] = ''
  elseif not fault and started ~= '' and redis.call('EXISTS', steps) == 0 then
    redis.call('HSET', steps, field, value, '@started', started)
    answer[r + 1] = ''
  elseif fault or redis.call('HSETNX', steps, field, value) == 0 then
    local stands = redis.call('HGET', steps, field)
    answer[r + 1] = (stands == value or not stands) and '' or stands
  else
    if started ~= '' then redis.call('HSETNX', steps, '@started', started) end
    answer[r + 1] = ''
  end
end
return answer
