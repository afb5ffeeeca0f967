-- After it each entry added by hand is an accepted command under the id made for it (P27); an id that another entry has is not touched.
--
-- KEYS lease commands accepted
-- ARGV token number n, then n times: entry id
-- RETURNS done, then for each: adopted | taken | gone; or fenced | rewound
local lease, commands, accepted = KEYS[1], KEYS[2], KEYS[3]
local token, number, n = ARGV[1], ARGV[2], tonumber(ARGV[3])
local fault = fence(lease, token, number)
if fault == 'fenced' or fault == 'rewound' then return { fault } end

local answer = { 'done' }
if not fault then redis.call('HSET', lease, 'call', number) end
for c = 1, n do
  local entry, id = ARGV[2 * c + 2], ARGV[2 * c + 3]
  local where = redis.call('HGET', accepted, id)
  if where then
    answer[c + 1] = where == entry and 'adopted' or 'taken'
  elseif fault or #redis.call('XRANGE', commands, entry, entry) == 0 then
    answer[c + 1] = 'gone'
  else
    redis.call('HSET', accepted, id, entry)
    answer[c + 1] = 'adopted'
  end
end
return answer
