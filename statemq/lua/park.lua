-- After it the commands lie in their keys' inboxes and no longer in the stream. An inbox is in entry order (P8): most commands are
-- younger than what lies there, and go behind it; after a takeover, or a pause, older ones may come. With may_run the key is in
-- T:ready (P9); without it too, if the owner took the instance for paused and it is not any more: a resume before the park found no inbox.
--
-- KEYS lease commands accepted ready, then for each key: inbox instance
-- ARGV token number keys, then for each key: key may_run n, then n times (in entry order): entry id element
-- RETURNS done [entry that is not an accepted command's …] | fenced | rewound | seen
local lease, commands, accepted, ready = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, number, keys = ARGV[1], ARGV[2], tonumber(ARGV[3])
local fault = fence(lease, token, number)
if fault then return { fault } end

-- a damaged key of the partition raises here, where nothing has been written (P20)
redis.call('XLEN', commands)
redis.call('ZCARD', ready)
local now = clock()
local answer, drop, moved, pushes, paused = { 'done' }, {}, {}, {}, {}
local at = 4
for k = 1, keys do
  local key, may_run, n = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local ids = {}
  for c = 1, n do ids[c] = ARGV[at + 3 * c + 1] end
  local where = redis.call('HMGET', accepted, unpack(ids))
  redis.call('LLEN', KEYS[3 + 2 * k]) -- a wrong type is found before the first write
  paused[k] = may_run == '1' or redis.pcall('HGET', KEYS[4 + 2 * k], 'paused')
  local push = {}
  for c = 1, n do
    local entry = ARGV[at + 3 * c]
    if where[c] == entry then
      push[#push + 1] = ARGV[at + 3 * c + 2]
      drop[#drop + 1] = entry
      moved[#moved + 1] = ids[c]
      moved[#moved + 1] = '@' .. entry .. ' ' .. key
    else
      answer[#answer + 1] = entry
    end
  end
  pushes[k] = { key, may_run, push }
  at = at + 3 + 3 * n
end

-- Puts the elements, which are in order, between those that lie there, from the left; returns those that are younger than all.
local function insert(inbox, elements)
  local place = 0
  for i, text in ipairs(elements) do
    local entry, stands = element(text), redis.call('LINDEX', inbox, place)
    while stands and not older(entry, (element(stands))) do
      place = place + 1
      stands = redis.call('LINDEX', inbox, place)
    end
    if not stands then return { unpack(elements, i) } end
    redis.call('LINSERT', inbox, 'BEFORE', stands, text)
    place = place + 1
  end
  return {}
end

redis.call('HSET', lease, 'call', number)
for k, p in ipairs(pushes) do
  if #p[3] > 0 then
    local inbox, push = KEYS[3 + 2 * k], p[3]
    local tail = redis.call('LINDEX', inbox, -1)
    if tail and older((element(push[1])), (element(tail))) then push = insert(inbox, push) end
    if #push > 0 then redis.call('RPUSH', inbox, unpack(push)) end
    if p[2] == '1' or not tail and (not paused[k] or for_other_version(paused[k])) then redis.call('ZADD', ready, 'NX', now, p[1]) end
  end
end
if #drop > 0 then
  redis.pcall('XACK', commands, 'workers', unpack(drop))
  redis.call('XDEL', commands, unpack(drop))
  redis.call('HSET', accepted, unpack(moved))
end
return answer
