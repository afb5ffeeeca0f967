-- After it the commands are pending in group workers under this worker (P3), those from an inbox carry their mark in the journal (P14).
-- Sent before their code runs. Answers which of them are not this partition's accepted commands (cancelled, forged).
--
-- KEYS lease commands accepted [steps …] (one for each command from an inbox, in order)
-- ARGV token number worker n, then n times: where(s|i) entry id key crashes
-- RETURNS done [index of one that is gone …] | fenced | rewound
local lease, commands, accepted = KEYS[1], KEYS[2], KEYS[3]
local token, number, worker, n = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local fault = fence(lease, token, number)
if fault == 'fenced' or fault == 'rewound' then return { fault } end

local ids = {}
for c = 1, n do ids[c] = ARGV[5 * c + 2] end
local where = redis.call('HMGET', accepted, unpack(ids))
local answer, claims, marks, next_steps = { 'done' }, {}, {}, 4
for c = 1, n do
  local o = 5 * c
  local entry = ARGV[o + 1]
  if ARGV[o] == 's' then
    if where[c] == entry then
      local crashes = ARGV[o + 4]
      local list = claims[crashes]
      if not list then
        list = {}
        claims[crashes] = list
      end
      list[#list + 1] = entry
    else
      answer[#answer + 1] = c
    end
  else
    if where[c] == '@' .. entry .. ' ' .. ARGV[o + 3] then
      marks[#marks + 1] = { KEYS[next_steps], worker .. ' ' .. ARGV[o + 4] }
    else
      answer[#answer + 1] = c
    end
    next_steps = next_steps + 1
  end
end
if fault == 'seen' then return answer end

redis.call('HSET', lease, 'call', number)
for crashes, list in pairs(claims) do
  local tail = { 'FORCE', 'JUSTID', 'RETRYCOUNT', crashes }
  for i = 1, 4 do list[#list + 1] = tail[i] end
  local claimed = redis.pcall('XCLAIM', commands, 'workers', worker, '0', unpack(list))
  if claimed.err then
    -- somebody destroyed the group: made anew, since only crash counting leans on it
    redis.pcall('XGROUP', 'CREATE', commands, 'workers', '0', 'MKSTREAM')
    redis.pcall('XCLAIM', commands, 'workers', worker, '0', unpack(list))
  end
end
-- pcall: a journal that somebody damaged is its command's trouble, not the partition's
for _, mark in ipairs(marks) do redis.pcall('HSET', mark[1], '@mark', mark[2]) end
return answer
