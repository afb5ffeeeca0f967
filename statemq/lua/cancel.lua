-- After it a command that waits in a queue or for its time has ended as cancelled; one that has begun is asked to, and its owner hears of it (P28).
--
-- KEYS commands accepted outcomes(stem) history timers timers:data steps ready inbox lease
-- ARGV id outcome_json history_cap reply_prefix once_prefix spare(1: one that has begun is left alone)
-- RETURNS cancelled | asked | begun (and spared) | unknown (not accepted here: ended, or never was)
local commands, accepted, outcomes, history = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local timers, timers_data, steps, ready, inbox, lease = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local id, json, history_cap, reply_prefix, once_prefix, spare = ARGV[1], ARGV[2], ARGV[3], ARGV[4] or '', ARGV[5] or '', ARGV[6]

local NEAR = 10000

-- Where the element of a parked command lies: its place and text, or nothing. An inbox is in entry order (P8), so a few looks find it;
-- where what somebody pushed by hand hides it, the first ones are looked at, and one that lies deeper stays until its turn.
local function find(entry, id)
  local low, high = 0, redis.call('LLEN', inbox) - 1
  while low <= high do
    local middle = math.floor((low + high) / 2)
    local there = redis.call('LINDEX', inbox, middle)
    local its_entry, its_id = element(there)
    if its_entry == entry and its_id == id then return middle, there end
    if its_entry and older(its_entry, entry) then low = middle + 1 else high = middle - 1 end
  end
  for place, there in ipairs(redis.call('LRANGE', inbox, 0, 199)) do
    local its_entry, its_id = element(there)
    if its_entry == entry and its_id == id then return place - 1, there end
  end
end

local where = redis.call('HGET', accepted, id)
if not where then return 'unknown' end
local now, wall = own_time(lease and redis.call('HGET', lease, 'clock'))
local parked_entry, key = string.match(where, '^@(%S+) (.*)$')
local place, text_there
local of = { key = '', transition = '', reply = '', once = '' }
if parked_entry then
  place, text_there = find(parked_entry, id)
  local ok, fields = pcall(cjson.decode, text_there and string.match(text_there, '^%S+ %S+ (.*)$') or '')
  local list = { 'key', key }
  if ok and type(fields) == 'table' then
    list = { 'key', key, 'transition', fields.transition, 'reply', fields.reply or '', 'once', fields.once or '' }
  end
  of = said_of(list, reply_prefix, once_prefix)
elseif where == 'timer' then
  of = delayed(timers_data, id, reply_prefix, once_prefix)
else
  for _, found in ipairs(redis.call('XRANGE', commands, where, where)) do of = said_of(found[2], reply_prefix, once_prefix) end
end
key = of.key
local begun = redis.call('EXISTS', steps) == 1
if not begun and not parked_entry and where ~= 'timer' then
  -- claimed, and nothing of it recorded yet: its first step may be under way, so it cannot be said that it has not run
  local claim = redis.pcall('XPENDING', commands, 'workers', where, where, 1)
  begun = not claim.err and #claim > 0
end
if begun and spare == '1' then return 'begun' end
if begun then
  redis.call('HSET', steps, '@cancel', text(wall))
  if parked_entry then redis.call('ZADD', ready, 'NX', wall, key) end
  look(commands, accepted, key)
  return 'asked'
end
-- a damaged key raises here, where nothing has been written
check_log(history)
redis.call('ZCARD', timers)
redis.call('HLEN', timers_data)
redis.call('HLEN', period_key(outcomes, now))
local act = settle_once(of.once)

if place then
  -- I8: its arguments go now. Its place goes where LREM finds it soon; in the middle of a very long inbox it stays until its turn
  local mark = parked_entry .. ' - '
  redis.call('LSET', inbox, place, mark)
  if place < NEAR then
    redis.call('LREM', inbox, 1, mark)
  elseif redis.call('LLEN', inbox) - place <= NEAR then
    redis.call('LREM', inbox, -1, mark)
  end
  if place == 0 then settle_ready(ready, inbox, key, wall) end
elseif not parked_entry and where ~= 'timer' then
  redis.pcall('XACK', commands, 'workers', where)
  redis.call('XDEL', commands, where)
end
end_command({ accepted = accepted, outcomes = outcomes, history = history, timers = timers, timers_data = timers_data },
  now, wall, id, json, of.reply, history_cap, { 'key', key, 'transition', of.transition, 'from', '', 'to', '', 'version', '',
  'outcome', 'cancelled', 'attempts', '0', 'worker', '' }, act)
-- the owner may be running it, or hold it as the next of its key
look(commands, accepted, key)
return 'cancelled'
