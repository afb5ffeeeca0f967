-- After it due timers have fired: a waiting command's key is ready, a delayed command is in the stream (P33). Each timer fires once.
-- A wake-up of a command that is not its inbox's head does nothing but go (P16).
--
-- KEYS lease commands accepted ready timers timers:data, then one inbox for each timer (a delayed command's is not used)
-- ARGV token number n, then n times: kind(wake|command) id key fields [field value …]
-- RETURNS done, then for each timer: ready | queued | early | gone; or fenced | rewound | seen
local lease, commands, accepted, ready, timers, timers_data = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local token, number, n = ARGV[1], ARGV[2], tonumber(ARGV[3])
local fault, mark = fence(lease, token, number)
if fault then return { fault } end

-- a damaged key of the partition raises here, where nothing has been written (P20)
redis.call('XLEN', commands)
redis.call('ZCARD', ready)
redis.call('HLEN', timers_data)
local now, _, marked = own_time(mark)
local plans, at = {}, 4
for t = 1, n do
  local kind, id, key, fields = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local inbox = KEYS[6 + t]
  local due = redis.call('ZSCORE', timers, id)
  local where = redis.call('HGET', accepted, id)
  local plan = 'gone'
  if due and tonumber(due) > now then
    plan = 'early'
  elseif due and kind == 'command' and where == 'timer' then
    plan = 'queued'
  elseif due and kind == 'wake' and where then
    local head = redis.pcall('LINDEX', inbox, 0) -- an inbox that somebody damaged stops its own key only
    local entry, head_id = element(type(head) == 'string' and head or '')
    if head_id == id and where == '@' .. entry .. ' ' .. key then plan = 'ready' end
  end
  plans[t] = { plan, id, key, at + 4, at + 3 + 2 * fields }
  at = at + 4 + 2 * fields
end

redis.call('HSET', lease, 'call', number, 'clock', marked)
local answer = { 'done' }
for t, p in ipairs(plans) do
  local plan, id = p[1], p[2]
  if plan == 'ready' then
    redis.call('ZADD', ready, 'NX', now, p[3])
  elseif plan == 'queued' then
    local entry = redis.pcall('XADD', commands, '*', unpack(ARGV, p[4], p[5]))
    if type(entry) == 'string' then
      redis.call('HSET', accepted, id, entry)
    else
      plan = 'early' -- the stream has used up its ids: it waits until that is mended
    end
  end
  if plan ~= 'early' then
    redis.call('ZREM', timers, id)
    redis.call('HDEL', timers_data, id)
  end
  answer[t + 1] = plan
end
return answer
