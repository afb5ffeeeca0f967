-- After it a command that waits in a queue or for its time has ended as cancelled; one that has begun is asked to, and its owner hears of it (P28).
--
-- KEYS commands accepted outcomes(stem) history timers timers:data steps ready inbox
-- ARGV id outcome_json history_cap reply_prefix once_prefix
-- RETURNS cancelled | asked | unknown (not accepted here: ended, or never was)
local commands, accepted, outcomes, history = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local timers, timers_data, steps, ready, inbox = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local id, json, history_cap, reply_prefix, once_prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local where = redis.call('HGET', accepted, id)
if not where then return 'unknown' end
local now = clock()
local parked_entry, key = string.match(where, '^@(%S+) (.*)$')
local transition, reply, once = '', nil, nil
if not parked_entry and where ~= 'timer' then
  for _, found in ipairs(redis.call('XRANGE', commands, where, where)) do
    for i = 1, #found[2], 2 do
      local name, value = found[2][i], found[2][i + 1]
      if name == 'key' then key = value end
      if name == 'transition' then transition = value end
      if name == 'reply' then reply = value end
      if name == 'once' then once = value end
    end
  end
elseif parked_entry then
  -- a bounded look for who waits; an element that lies deeper says it when its turn comes
  for _, text in ipairs(redis.call('LRANGE', inbox, 0, 199)) do
    local _, found = element(text)
    local ok, fields = pcall(cjson.decode, found == id and string.match(text, '^%S+ %S+ (.*)$') or '')
    if ok then transition, reply, once = fields.transition or '', fields.reply, fields.once end
  end
elseif where == 'timer' then
  local fields = cjson.decode(redis.call('HGET', timers_data, id) or '[]')
  for i = 1, #fields, 2 do
    if fields[i] == 'key' then key = fields[i + 1] end
    if fields[i] == 'transition' then transition = fields[i + 1] end
    if fields[i] == 'reply' then reply = fields[i + 1] end
    if fields[i] == 'once' then once = fields[i + 1] end
  end
end
key = key or ''
-- P33: an entry by hand may name anything
if reply and string.sub(reply, 1, #reply_prefix) ~= reply_prefix then reply = nil end
if once and string.sub(once, 1, #once_prefix) ~= once_prefix then once = nil end
local begun = redis.call('EXISTS', steps) == 1
if not begun and not parked_entry and where ~= 'timer' then
  -- claimed, and nothing of it recorded yet: its first step may be under way, so it cannot be said that it has not run
  local claim = redis.pcall('XPENDING', commands, 'workers', where, where, 1)
  begun = not claim.err and #claim > 0
end
if begun then
  redis.call('HSET', steps, '@cancel', text(now))
  if parked_entry then redis.call('ZADD', ready, 'NX', now, key) end
  look(commands, accepted, key)
  return 'asked'
end
-- a damaged key raises here, where nothing has been written
check_log(history)
redis.call('ZCARD', timers)
redis.call('HLEN', timers_data)
redis.call('HLEN', period_key(outcomes, now))
if once then redis.call('HLEN', once) end

redis.call('HDEL', accepted, id)
redis.call('ZREM', timers, id)
redis.call('HDEL', timers_data, id)
if not parked_entry and where ~= 'timer' then
  redis.pcall('XACK', commands, 'workers', where)
  redis.call('XDEL', commands, where)
end
local outcome = stamp(json, now)
keep_outcomes(outcomes, now, { id, outcome })
if once then
  redis.call('HSET', once, 'outcome', outcome)
  redis.call('PEXPIRE', once, 86400000)
end
redis.call('XADD', history, 'MAXLEN', '~', history_cap, '*', 'id', id, 'key', key, 'transition', transition, 'from', '', 'to', '',
  'version', '', 'outcome', 'cancelled', 'attempts', '0', 'worker', '')
if reply then redis.call('PUBLISH', reply, '[' .. outcome .. ']') end
-- the owner may be running it, or hold it as the next of its key
look(commands, accepted, key)
return 'cancelled'
